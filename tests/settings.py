"""The product's settings on an empty data folder, whatever the machine's environment and `.env` say."""

import atexit
import os
import shutil
import tempfile

ISOLATED = "ALGO_TEST_ISOLATED"

if ISOLATED not in os.environ:  # a child process of a test keeps what the test gave it
    for name in [name for name in os.environ if name.startswith("ALGO_") and not name.startswith("ALGO_TEST_")]:
        del os.environ[name]
    folder = tempfile.mkdtemp(prefix="algotrader-test-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ |= {ISOLATED: "1", "ALGO_DATA_DIR": folder, "ALGO_ENV_FILE": os.devnull}

from algotrader.settings import *  # noqa: E402, F403

PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # logins of tests need no slow hash
