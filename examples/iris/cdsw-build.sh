# Runs once for each build, into the build's own environment.
set -e
pip3 install -r requirements.txt
python3 fit.py
