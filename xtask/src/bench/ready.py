"""Prints the wall-clock time at which the API server at a URL says that it is ready.

usage: ready.py URL SECONDS_MAX
"""
import ssl, sys, time, urllib.request

context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
until = time.time() + float(sys.argv[2])
while time.time() < until:
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=1, context=context) as answer:
            if answer.status == 200:
                print(time.time())
                sys.exit(0)
    except OSError:
        pass
    # Often enough to see 5 ms, seldom enough to leave the cores to what is measured.
    time.sleep(0.005)
sys.exit(f"{sys.argv[1]} was not ready within {sys.argv[2]} s")
