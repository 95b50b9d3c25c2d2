"""Who sends the requests, and what else is looked for in the answers.

DOORWARD_URL, and with DOORWARD_EMAIL and DOORWARD_PASSWORD somebody who is logged in.
"""

import os

import requests
import schemathesis

URL = os.environ["DOORWARD_URL"]
EMAIL = os.environ.get("DOORWARD_EMAIL")

# What is said of a body that does not have the documented shape.
SHAPE = {"malformed_json", "malformed_body", "missing_field", "unknown_field", "wrong_type", "wrong_value"}


def log_in():
    proof = {"email": EMAIL, "password": os.environ["DOORWARD_PASSWORD"]}
    answer = requests.post(f"{URL}/v1/auth/login", json=proof, timeout=10)
    answer.raise_for_status()
    return answer.json()


if EMAIL:
    OWN_ID = requests.get(
        f"{URL}/v1/auth/me",
        headers={"Authorization": f"Bearer {log_in()['access_token']}"},
        timeout=10,
    ).json()["id"]

    # Some requests end the session that they belong to.
    @schemathesis.auth(refresh_interval=1)
    class Login:
        def get(self, case, context):
            return log_in()["access_token"]

        def set(self, case, token, context):
            case.headers["Authorization"] = f"Bearer {token}"

    @schemathesis.hook
    def filter_path_parameters(context, path_parameters):
        """An administrator who deactivates or renames themselves would be nobody from then on."""
        return not path_parameters or OWN_ID not in path_parameters.values()


@schemathesis.check
def shape_is_documented(context, response, case):
    """What the document allows has the right shape."""
    if response.status_code != 400 or not case.meta or not case.meta.generation.mode.is_positive:
        return
    if response.headers.get("content-type", [""])[0] != "application/problem+json":
        return
    code = response.json().get("code")
    assert code not in SHAPE, f"the document allows a body that is answered {code}: {response.text}"
