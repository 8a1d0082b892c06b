# A folder without a net.py.
