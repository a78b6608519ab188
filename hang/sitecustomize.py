import os
import sys
import time

if os.environ.get("HANGME") and "-c" in sys.orig_argv:
    time.sleep(600)
