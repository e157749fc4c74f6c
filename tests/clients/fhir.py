"""fhirpy and fhirclient create resources and send a Bundle, each as its documentation shows; one line per attempt."""

import sys
import traceback

base = sys.argv[1]
failed = False


def attempt(name, act):
    global failed
    try:
        act()
        print(f"{name}: ok")
    except Exception:
        failed = True
        print(f"{name}: FAILED")
        traceback.print_exc(limit=4)


def fhirpy_client():
    from fhirpy import SyncFHIRClient

    return SyncFHIRClient(base)


def fhirpy_create():
    device = fhirpy_client().resource("Device", deviceName=[{"name": "Pump seven", "type": "user-friendly-name"}])
    device.create()


def fhirpy_save():
    fhirpy_client().resource("SupplyDelivery", status="completed").save()


def fhirpy_bundle():
    # A Bundle goes to the base itself.
    fhirpy_client().execute("", method="post", data={"resourceType": "Bundle", "type": "batch", "entry": []})


def fhirclient_server():
    from fhirclient.server import FHIRServer

    return FHIRServer(None, base_uri=base)


def fhirclient_create():
    from fhirclient.models.device import Device

    Device({"resourceType": "Device", "status": "active", "serialNumber": "7"}).create(fhirclient_server())


def fhirclient_bundle():
    from fhirclient.models.bundle import Bundle

    fhirclient_server().post_json("", Bundle({"resourceType": "Bundle", "type": "transaction"}).as_json())


attempt("fhirpy create", fhirpy_create)
attempt("fhirpy save", fhirpy_save)
attempt("fhirpy bundle", fhirpy_bundle)
attempt("fhirclient create", fhirclient_create)
attempt("fhirclient bundle", fhirclient_bundle)
sys.exit(failed)
