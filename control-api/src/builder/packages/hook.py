import os, sys; getattr(sys, "orig_argv", [])[1:3] == ["-m", "pip"] and "MILLGATE_PIP" not in os.environ and os.path.exists("@pip@") and os.execv("@pip@", ["pip", *sys.orig_argv[3:]])
