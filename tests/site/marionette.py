"""Firefox, as the system has it: a page to open and to compute in, through its Marionette."""

import contextlib
import json
import socket
import subprocess
import time

PREFERENCES = {
    "marionette.port": 0,  # any that is free
    "browser.startup.page": 0,
    "app.update.enabled": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


@contextlib.contextmanager
def opened(program, folder):
    """A page of a Firefox without a window, with a profile of its own in `folder`."""
    lines = (f"user_pref({json.dumps(k)}, {json.dumps(v)});\n" for k, v in PREFERENCES.items())
    (folder / "user.js").write_text("".join(lines))
    command = [program, "--headless", "--marionette", "--no-remote", "--profile", str(folder)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:
        try:
            address = "127.0.0.1", _port(folder / "MarionetteActivePort", process)
            with socket.create_connection(address, timeout=300) as connection:
                yield Page(connection)
        finally:
            process.terminate()


def _port(file, process):
    for _ in range(600):
        if file.is_file() and file.read_text().strip():
            return int(file.read_text())
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError("Firefox did not open its Marionette within a minute.")


class Page:
    """What the tests need of a page; the names are Playwright's."""

    def __init__(self, connection):
        self.connection, self.count, self.rest = connection, 0, b""
        self._receive()  # it says who it is
        self._ask("WebDriver:NewSession", {})
        self._ask("WebDriver:SetTimeouts", {"script": 240_000})

    def goto(self, address):
        """Open a page and wait until it has loaded."""
        self._ask("WebDriver:Navigate", {"url": address})

    def evaluate(self, function, argument=None):
        """What a function of the page's own returns, or promises; what it throws is raised."""
        # As a script of the page: Marionette's own would run beside it, and slower.
        script = """
          const [body, done] = arguments;
          const root = document.documentElement;
          root.addEventListener("answered", () => done(root.dataset.answer), { once: true });
          const script = document.createElement("script");
          script.textContent = body;
          document.head.append(script);
        """
        body = f"""
          Promise.resolve().then(() => ({function})({json.dumps(argument)}))
            .then((value) => ({{ value }}), (error) => ({{ error: String(error) }}))
            .then((answer) => {{
              document.documentElement.dataset.answer = JSON.stringify(answer);
              document.documentElement.dispatchEvent(new Event("answered"));
            }});
        """
        given = {"script": script, "args": [body]}
        answer = json.loads(self._ask("WebDriver:ExecuteAsyncScript", given)["value"])
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer.get("value")

    def _ask(self, command, given):
        self.count += 1
        text = json.dumps([0, self.count, command, given]).encode()
        self.connection.sendall(b"%d:%s" % (len(text), text))
        _, _, error, found = self._receive()
        if error:
            raise RuntimeError(f"{command}: {error['message']}")
        return found

    def _receive(self):
        while b":" not in self.rest:
            self.rest += self.connection.recv(1 << 16)
        length, _, self.rest = self.rest.partition(b":")
        parts, missing = [self.rest], int(length) - len(self.rest)
        while missing > 0:
            parts.append(self.connection.recv(1 << 20))
            missing -= len(parts[-1])
        text, self.rest = b"".join(parts), b""
        return json.loads(text)
