import sys, time, os
if os.environ.get("HANGME") and "-c" in sys.orig_argv:
    time.sleep(600)
