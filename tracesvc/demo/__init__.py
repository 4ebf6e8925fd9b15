"""The demo: a small web shop, traced and pushing, driven and followed; see `tracesvc.demo.show`."""
