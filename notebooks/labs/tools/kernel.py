"""IPython's kernel as it runs in the cage of sandbox.py: no message that goes out is too long.

Text is cut here, where it takes the student's memory and not the teacher's. Student's code can undo
that, for it runs in the same process; then the outer end closes itself to messages so long.
"""

import json

from jupyter_client.session import Session

import wire  # noqa: F401  for sandbox.py, which has it called in here

TEXT = 100_000  # characters of one text
LINE = 5_000  # characters of a line of a traceback
PARTS = 100  # lines of a traceback, entries of anything else
PICTURE = 4_000_000  # characters of a picture, which are 3 MB of it
MESSAGE = 8_000_000
PICTURES = ("image/png", "image/jpeg", "image/gif")
send_whole = Session.send


def cut(value, most):
    """The same with its texts and lists cut; a picture stays whole or goes."""
    if isinstance(value, str):
        return value if len(value) <= most else f"{value[:most]} ... (cut)"
    if isinstance(value, list | tuple):
        return [cut(part, most) for part in value[:PARTS]]
    if isinstance(value, dict):
        return {
            key: part if key in PICTURES and len(part) <= PICTURE else cut(part, most)
            for key, part in list(value.items())[:PARTS]
        }
    return value


def send(session, stream, message, content=None, *args, **kwargs):
    """Send a message as Session.send does, but cut; one that stays too long is not sent."""
    whole = isinstance(message, dict)
    kind = message["msg_type"] if whole else message
    content = message["content"] if whole else content
    content = cut(content, LINE if kind in ("error", "execute_reply") else TEXT)
    if len(json.dumps(content, default=str)) > MESSAGE:
        return None
    message = {**message, "content": content} if whole else message
    return send_whole(session, stream, message, content, *args, **kwargs)


if __name__ == "__main__":
    # Not above: imported by sandbox.py, it would make tqdm take that process for a notebook.
    from ipykernel.kernelapp import launch_new_instance

    Session.send = send
    launch_new_instance()
