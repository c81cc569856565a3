"""What an interpreter is asked about itself. Any Python from 2.7 on can run it."""

import sys

if sys.version_info < (3, 9):
    print('{"version": "%d.%d.%d"}' % sys.version_info[:3])
else:
    import importlib.util
    import json
    import os
    import sysconfig

    folders = [sysconfig.get_config_var("LIBDIR"), os.path.join(sys.base_prefix, "lib")]
    name = sysconfig.get_config_var("INSTSONAME") or ""
    libraries = [os.path.join(folder, name) for folder in folders if folder and ".so" in name]
    print(
        json.dumps(
            {
                "version": "%d.%d.%d" % sys.version_info[:3],
                "implementation": sys.implementation.name,
                "executable": os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable),
                "base_prefix": sys.base_prefix,
                "library": next((os.path.realpath(path) for path in libraries if os.path.exists(path)), ""),
                "is_shared": bool(sysconfig.get_config_var("Py_ENABLE_SHARED")),
                "is_free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
                "has_venv": all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")),
            }
        )
    )
