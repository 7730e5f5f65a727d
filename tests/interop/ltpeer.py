"""A libtorrent peer of one torrent, for the interoperability tests.

usage: ltpeer.py TORRENT FOLDER IP:PORT [lsd] [pex]

Standard output gets one word a line: "ready" when the data that was there is checked, "seeding"
when it was all there, "complete" when a download is written out, "error ..." when something fails.
It leaves when its standard input is closed.
"""

import os
import sys
import threading

import libtorrent as lt


def say(text):
    print(text, flush=True)


def leave_with_parent():
    sys.stdin.read()
    os._exit(0)


def main():
    torrent, folder, address, *roads = sys.argv[1:]
    ip = address.rsplit(":", 1)[0]
    category = lt.alert.category_t
    session = lt.session({
        "listen_interfaces": address,
        "outgoing_interfaces": ip,
        "enable_dht": False,
        "enable_lsd": "lsd" in roads,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_utp": False,
        "enable_outgoing_utp": False,
        "allow_multiple_connections_per_ip": True,
        "ssrf_mitigation": False,
        "alert_mask": category.status_notification | category.error_notification
        | category.storage_notification | category.tracker_notification,
    })
    params = lt.add_torrent_params()
    params.ti = lt.torrent_info(torrent)
    params.save_path = folder
    params.flags &= ~(lt.torrent_flags.auto_managed | lt.torrent_flags.paused)
    if "pex" not in roads:
        params.flags |= lt.torrent_flags.disable_pex
    handle = session.add_torrent(params)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    while True:
        session.wait_for_alert(500)
        for alert in session.pop_alerts():
            kind = type(alert).__name__
            if kind == "torrent_checked_alert":
                say("seeding" if handle.status().is_seeding else "ready")
            elif kind == "torrent_finished_alert":
                # "finished" only means hashed: the last blocks may still wait to be written
                handle.flush_cache()
            elif kind == "cache_flushed_alert" and handle.status().is_seeding:
                say("complete")
            elif kind.endswith("_error_alert") or kind == "listen_failed_alert":
                say("error " + alert.message())


if __name__ == "__main__":
    main()
