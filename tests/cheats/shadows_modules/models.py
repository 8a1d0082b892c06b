raise SystemExit("cheat_was_here")
