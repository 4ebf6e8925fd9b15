"""Being written by another founder right now: do not edit or recreate."""
