set -e
pip3 install -r requirements.txt
