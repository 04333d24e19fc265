"""The sandbox against programs that cheat, break out, or take the machine with them; and against honest ones."""
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import need_sandbox, wait_for

from contemplative_cai.capability import box, sandbox
from contemplative_cai.capability.sandbox import _plain, _revived, run_code, sandbox_mode
from contemplative_cai.core.schema import InputError

CHECKS = "double = remote('double')\nassert double(4) == 8\nassert double([1]) == [1, 1]"
HONEST = "def double(number): return 2 * number"
NONCE = "0123456789abcdef" * 2


@pytest.fixture(params=["bwrap", pytest.param("unshare", marks=pytest.mark.long)])
def mode(request):
    need_sandbox(sandbox._fault_of(request.param))
    return request.param


def run(program, mode, checks=CHECKS, seconds=20, **more):
    return run_code(textwrap.dedent(program), textwrap.dedent(checks), seconds=seconds, mode=mode, **more)


def named(mark):
    "The processes of this machine that call themselves so."
    def name(folder):
        try: return (folder / "comm").read_text().strip()
        except OSError: return ""
    return [int(folder.name) for folder in Path("/proc").glob("[0-9]*") if name(folder) == mark]


def call_myself(mark): return f"import ctypes\nctypes.CDLL(None).prctl(15, b'{mark}')\n"


@pytest.fixture
def mark():
    "A name for processes, which nobody has when the test is over."
    yield (name := f"box-{secrets.token_hex(4)}")
    wait_for(lambda: not named(name), 5)


# honest programs

def test_an_honest_program_passes_and_a_wrong_one_fails(mode):
    assert run(HONEST, mode).status == "passed"
    wrong = run("def double(number): return 3 * number", mode)
    assert wrong.status == "failed" and "AssertionError" in wrong.stderr and wrong.mode == mode


@pytest.mark.parametrize("program, checks", [
    ("def words(): print('said'); return {'a': (1, 2.5)}", "assert remote('words')() == {'a': (1, 2.5)}"),
    ("def fail(): raise ValueError('no')",
     "try: remote('fail')()\nexcept ValueError as error: assert str(error) == 'no'\nelse: assert False"),
    ("from dataclasses import dataclass\n@dataclass\nclass P: a: int\ndef get(a): return P(a).a",
     "assert remote('get')(2 ** 80) == 2 ** 80"),
    ("def add(a, *, b): return a + b", "assert remote('add')('x', b='\\ud800y') == 'x\\ud800y'"),
    ("import math, re, collections, itertools, heapq, hashlib, decimal\ndef f(): return float('inf')",
     "assert remote('f')() == float('inf')"),
    ("def naturals(): yield from range(4)", "assert next(remote('naturals')()) == 0"),
    ("def kept(): open('file', 'w').write('x'); return open('/tmp/file').read()", "assert remote('kept')() == 'x'"),
    ("if __name__ == '__main__': input()\ndef one(): return 1", "assert remote('one')() is not None"),
    ("def much(): print('x' * 1_000_000); return 1", "assert remote('much')() == 1"),
])
def test_what_programs_may_do(mode, program, checks):
    came = run(program, mode, checks)
    assert came.status == "passed", came.stderr
    assert len(came.stderr) <= 2000


DATA = st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner)
                    | st.tuples(inner, inner) | st.frozensets(st.integers()), max_leaves=8)


@given(DATA)
def test_plain_data_comes_over_as_it_was(value):
    came = _revived(json.loads(json.dumps(_plain(value))))
    assert came == value and type(came) is type(value)


# programs that want to pass

CHEATS = {
    "sys.exit(0)": "import sys\nsys.exit(0)",
    "sys.exit(0) when called": "import sys\ndef double(number): sys.exit(0)",
    "os._exit(0)": "import os\nos._exit(0)",
    "os._exit(0) when called": "import os\ndef double(number): os._exit(0)",
    "SystemExit in a thread": """
        import threading
        def leave(): raise SystemExit(0)
        threading.Thread(target=leave).start()
        def double(number): return None""",
    "a thread that ends the process": """
        import os, threading, time
        threading.Thread(target=lambda: (time.sleep(0.05), os._exit(0))).start()
        def double(number): time.sleep(1)""",
    "a signal to itself": "import os\nos.kill(os.getpid(), 9)",
    "an exit handler": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "equal to everything": """
        class Same:
            def __eq__(self, other): return True
        def double(number): return Same()""",
    "a text that is equal to everything": """
        class Same(str):
            def __eq__(self, other): return True
            __hash__ = str.__hash__
        def double(number): return Same("8")""",
    "a number that is equal to everything": """
        class Same(int):
            def __eq__(self, other): return True
            def __int__(self): return Same(8)
        def double(number): return Same(7)""",
    "patching builtins": """
        import builtins, sys
        builtins.AssertionError = builtins.Exception = type("Quiet", (BaseException,), {})
        builtins.exec = builtins.compile = lambda *args, **kwargs: None
        builtins.__build_class__ = None
        sys.excepthook = lambda *args: None
        def double(number): return number""",
    "patching the test function": """
        import sys, gc
        for frame in sys._current_frames().values():
            while frame:
                for space in (frame.f_globals, frame.f_locals):
                    for name in ("check", "checks", "remote", "double", "_check", "_plain", "_revived"):
                        space[name] = lambda *args, **kwargs: True
                frame = frame.f_back
        def double(number): return True""",
    "patching json": """
        import json
        json.dumps = lambda *args, **kwargs: '{"value": true}'
        def double(number): return number""",
    "answers on every pipe": """
        import os
        for number in range(64):
            try: os.write(number, b'{"value": true}\\n' * 100)
            except OSError: pass
        def double(number): return True""",
    "answers that are none": """
        import os
        for number in range(3, 64):
            try: os.write(number, b'[[[[\\n{"value": {"range": 1}}\\n{"error": null}\\n')
            except OSError: pass""",
    "an answer without an end": "def double(number): return 'x' * 20_000_000",
    "an answer without a bottom": """
        def double(number):
            inner = []
            for _ in range(100_000): inner = [inner]
            return inner""",
    "an iterator without an end": "import itertools\ndef double(number): return itertools.repeat('x' * 1000)",
    "writing the nonce everywhere": f"""
        import os, sys
        print("{NONCE}", flush=True)
        print("{NONCE}", file=sys.stderr, flush=True)
        for number in range(64):
            try: os.write(number, b"{NONCE}")
            except OSError: pass
        os._exit(0)""",
    "reading its input": "import sys\ndef double(number): return eval(sys.stdin.read())",
    "not Python": "def double(number) return",
    "nothing of the kind": "x = 1",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_no_program_passes_without_the_right_answers(mode, cheat, monkeypatch):
    "Even one that knows the nonce has nowhere to write it."
    monkeypatch.setattr(sandbox.secrets, "token_hex", lambda length: NONCE)
    came = run(CHEATS[cheat], mode)
    assert came.status in ("failed", "killed"), came


def test_the_nonce_is_nowhere_in_the_programs_process(mode, monkeypatch):
    monkeypatch.setattr(sandbox.secrets, "token_hex", lambda length: NONCE)
    scan = """
        import ctypes, gc, os, re, sys
        planted = "".join(["fedcba9876543210"] * 2)
        def texts():
            yield from (item for item in gc.get_objects() for item in (item.values() if type(item) is dict else
                        item if type(item) in (list, tuple) else ()) if isinstance(item, (str, bytes)))
            for frame in sys._current_frames().values():
                while frame:
                    yield from map(str, [*frame.f_globals.values(), *frame.f_locals.values()])
                    frame = frame.f_back
            yield from [*sys.argv, *sys.orig_argv, *map(str, os.environ.items())]
            for number in range(64):
                try:
                    os.set_blocking(number, False)
                    yield os.read(number, 1_000_000)
                    os.lseek(number, 0, 0)
                    yield os.read(number, 1_000_000)
                except OSError: pass
            for path in ("/proc/self/mem", "/proc/self/fd/0", "/proc/self/cmdline", "/dev/stdin", "/dev/fd/0"):
                try: yield open(path, "rb").read(1_000_000)
                except OSError: pass
        held = {found for text in texts() for found in re.findall("[0-9a-f]{32}", str(text))}
        print("held", sorted(held), file=sys.stderr)
        """
    came = run(scan, mode)
    assert "held" in came.stderr and "fedcba9876543210" * 2 in came.stderr and came.status == "failed"
    assert NONCE not in came.stderr


def test_a_program_that_is_gone_is_not_taken_for_an_error_that_the_checks_expect(mode):
    checks = "try: remote('double')(1)\nexcept BaseException: pass"
    assert run("import os\ndef double(number): os._exit(0)", mode, checks).status == "failed"
    assert run("def double(number): raise ValueError", mode, checks).status == "passed"


def test_checks_that_ask_nothing_or_end_early_do_not_pass(mode):
    for checks in ("pass", "assert True", "remote('double')", "remote('double')(1)\nraise SystemExit(0)",
                   "import os\nremote('double')(1)\nos._exit(0)"):
        assert run(HONEST, mode, checks).status == "failed", checks


# programs that want out: each gives what it reached, and outside reaches it

REACH = {
    "a listener on loopback": """
        import socket
        def reach(port): return socket.create_connection(("127.0.0.1", port), 2).recv(100).decode()""",
    "an abstract socket": """
        import socket
        def reach(name):
            with socket.socket(socket.AF_UNIX) as line:
                line.connect("\\0" + name)
                return line.recv(100).decode()""",
    "a file of the home": "def reach(path): return open(path).read()",
    "a file behind a link": """
        import os
        def reach(path):
            os.symlink(path, "link")
            try: return open("link").read()
            finally: os.remove("link")""",
    "a file above": "import os\ndef reach(path): return open(os.path.join(*[os.pardir] * 20, path[1:])).read()",
    "the environment": "import os\ndef reach(name): return os.environ[name]",
    "the environment of others": "def reach(pid): return open(f'/proc/{pid}/environ').read()",
    "the names of others": "def reach(pid): return open(f'/proc/{pid}/cmdline').read()",
}
SECRET = "what nobody may know"


@pytest.fixture
def bait(tmp_path, monkeypatch):
    "What lies outside, by the name of the attack on it."
    monkeypatch.setenv("PLANTED_KEY", SECRET)
    (home := tmp_path / "home").mkdir()
    (home / "passwd").write_text(SECRET)
    holder = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()", SECRET], stdin=subprocess.PIPE)
    name = f"box-{secrets.token_hex(8)}"
    with socket.create_server(("127.0.0.1", 0)) as port, socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind("\0" + name)
        abstract.listen()
        file = str(home / "passwd")
        yield {"a listener on loopback": port.getsockname()[1], "an abstract socket": name, "a file of the home": file,
               "a file behind a link": file, "a file above": file, "the environment": "PLANTED_KEY",
               "the environment of others": holder.pid, "the names of others": holder.pid}, (port, abstract)
    holder.communicate()


def serve(lines):
    "Let who connects have the secret; how many have connected."
    served = 0
    for line in lines:
        line.settimeout(0.2)
        try: guest, _ = line.accept()
        except TimeoutError: continue
        with guest: guest.sendall(SECRET.encode())
        served += 1
    return served


@pytest.mark.parametrize("attack", REACH)
def test_nothing_outside_is_reached_that_is_reached_from_outside(mode, attack, bait, tmp_path, monkeypatch):
    wanted, lines = bait
    monkeypatch.chdir(tmp_path)
    exec(textwrap.dedent(REACH[attack]), space := {})
    host = threading.Thread(target=serve, args=(lines,))
    host.start()
    assert SECRET in space["reach"](wanted[attack]), "the control does not reach it either"
    host.join()
    checks = f"""
        try: came = remote("reach")({wanted[attack]!r})
        except Exception as error: print("refused:", type(error).__name__, error)
        else: raise SystemExit(f"reached: {{came}}")"""
    came = run(REACH[attack], mode, checks)
    assert came.status == "passed" and "refused: " in came.stderr and SECRET not in came.stderr, came
    assert serve(lines) == 0


def test_nothing_is_written_but_in_its_own_folder_and_nothing_is_left_there(mode, tmp_path):
    tmp_path.chmod(0o777)
    program = """
        import os
        def write(path):
            with open(path, "w") as file: file.write("x")
            return os.path.exists(path)"""
    paths = [str(tmp_path / "x"), "/x", "/usr/x", "/usr/bin/x", "/etc/x", "/dev/x", "/dev/shm/x", "/root/x", "/proc/x",
             f"{os.path.realpath(sys.base_prefix)}/x", os.path.realpath(sys.executable)]
    checks = f"""
        assert remote("write")("/tmp/left")
        for path in {paths!r}:
            try: remote("write")(path)
            except OSError: continue
            raise SystemExit("written: " + path)"""
    came = run(program, mode, checks)
    assert came.status == "passed", came.stderr
    assert not list(tmp_path.iterdir()) and not Path("/tmp/left").exists()
    left = run("import os\ndef names(): return os.listdir('/tmp')", mode, "assert remote('names')() == []")
    assert left.status == "passed", left.stderr


def test_it_is_nobody_of_consequence_and_cannot_become_somebody(mode):
    program = """
        import ctypes, os
        libc = ctypes.CDLL(None, use_errno=True)
        def become(): os.setuid(0); return open("/usr/x", "w").write("x")
        def mount(): return libc.mount(None, b"/usr", None, 32 | 4096, None)
        def own_users():
            libc.unshare(0x10000000 | 0x20000)
            return libc.mount(None, b"/usr", None, 32 | 4096, None)
        def capabilities():
            held = (ctypes.c_uint32 * 6)()
            assert libc.capget((ctypes.c_uint32 * 2)(0x20080522, 0), held) == 0
            return list(held)[:2] + list(held)[3:5]"""
    checks = """
        assert remote("capabilities")() == [0, 0, 0, 0]
        assert remote("mount")() == -1
        assert remote("own_users")() == -1
        try: remote("become")()
        except OSError: pass
        else: raise SystemExit("became")"""
    came = run(program, mode, checks)
    assert came.status == "passed", came.stderr


def test_other_processes_cannot_be_traced_or_ended_and_the_first_one_stays(mode):
    program = """
        import ctypes, os, signal
        libc = ctypes.CDLL(None, use_errno=True)
        def trace(pid): return libc.ptrace(16, pid, 0, 0), ctypes.get_errno()
        def peek(pid):
            room = ctypes.create_string_buffer(8)
            span = (ctypes.c_size_t * 2)(ctypes.addressof(room), 8)  # where, and how much
            return libc.process_vm_readv(pid, span, 1, span, 1, 0), ctypes.get_errno()
        def end():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            for pid in (os.getppid(), 1):
                for number in (15, 9, 19):
                    try: os.kill(pid, number)
                    except OSError: pass
            return os.getppid()
        def seen(): return [pid for pid in range(1, 50_000) if not libc.kill(pid, 0)]"""
    checks = f"""
        import errno
        assert remote("trace")({os.getpid()}) in ((-1, errno.ESRCH), (-1, errno.EPERM))
        assert remote("peek")({os.getpid()}) in ((-1, errno.ESRCH), (-1, errno.EPERM))
        assert remote("end")() == 1
        assert len(remote("seen")()) <= 2"""
    came = run(program, mode, checks)
    assert came.status == "passed", came.stderr


CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *args):
    came = libc.syscall(number, *args)
    return ctypes.get_errno() if came == -1 else 0
"""


@pytest.mark.skipif(not box.call_filter(), reason="the numbers of this machine's system calls are not known")
def test_system_calls_that_open_boxes_are_refused_and_those_outside_are_not(mode):
    numbers, (_, clone) = box._REFUSED_CALLS[os.uname().machine], box._MACHINES[os.uname().machine]
    checks = f"""
        import errno
        call = remote("call")
        for name, number in {numbers | box._REFUSED_ANYWHERE!r}.items():
            assert call(number, 0, 0, 0, 0, 0, 0) == errno.EPERM, name
        assert call(435, 0, 0) == errno.ENOSYS  # clone3
        for flag in (0x10000000, 0x20000, 0x40000000, 0x20000000):
            assert call({clone}, flag | 17, 0, 0, 0, 0) == errno.EPERM, flag"""
    came = run(CALLS, mode, checks)
    assert came.status == "passed", came.stderr
    outside = CALLS + f"assert call({numbers['memfd_create']}, b'x', 0) == call({numbers['personality']}, -1) == 0"
    assert subprocess.run([sys.executable, "-c", outside], check=False).returncode == 0


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="only this machine has calls of two others")
def test_calls_by_another_machines_numbers_end_the_program(mode):
    x32 = run(CALLS + "def double(number): return call((1 << 30) | 39)", mode)
    assert x32.status == "killed", x32


# programs that want everything

def test_a_bomb_of_a_hundred_forks_is_stopped_at_sixteen(mode, mark):
    program = call_myself(mark) + textwrap.dedent("""
        import os, time
        def bomb():
            for count in range(100):
                try:
                    if not os.fork(): time.sleep(60)
                except BlockingIOError: return count
            return count""")
    came = run(program, mode, "assert 1 < remote('bomb')() <= 16")
    assert came.status == "passed", came.stderr


def test_a_bomb_without_an_end_is_harmless_and_leaves_nothing(mode, mark):
    program = call_myself(mark) + textwrap.dedent("""
        import os, signal
        for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
        os.setsid() if os.getpid() != os.getsid(0) else None
        while True:
            try: os.fork()
            except OSError: pass""")
    came = run(program, mode, seconds=1)
    assert came.status == "timeout" and came.seconds < 5
    wait_for(lambda: not named(mark), 3)
    assert run(HONEST, mode).status == "passed"


def test_threads_count_as_processes(mode):
    program = """
        import threading, time
        def threads():
            for count in range(100):
                try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
                except RuntimeError: return count
            return count"""
    came = run(program, mode, "assert remote('threads')() <= 16")
    assert came.status == "passed", came.stderr


@pytest.mark.parametrize("program", ["while True: pass", "def double(number):\n    while True: pass",
                                     "import time\ntime.sleep(60)", "while True: print('x' * 10_000)"])
def test_what_does_not_end_is_ended(mode, program):
    came = run(program, mode, seconds=1)
    assert came.status == "timeout" and 1 <= came.seconds < 5 and len(came.stderr) <= 2000


@pytest.mark.parametrize("program", [
    "held = bytearray(4 << 30)", "held = [0] * (1 << 30)", "held = 'x'\nwhile True: held += held",
    "def double(number): return 'x' * (4 << 30)", "import mmap\nmmap.mmap(-1, 4 << 30)"])
def test_memory_is_bounded(mode, program):
    came = run(program, mode, memory_mb=128)
    assert came.status in ("failed", "killed"), came


def test_files_are_bounded_in_size_together_and_in_number(mode):
    program = """
        import os, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        def long():
            with open("long", "wb") as file: return sum(file.write(b"x" * 1_000_000) for _ in range(100))
        def many():
            for count in range(20):
                with open(f"file {count}", "wb") as file: file.write(b"x" * 10_000_000)
        def open_ones(): return len([open("/dev/null") for _ in range(100)])
        def in_memory():
            number = os.memfd_create("x")
            return sum(os.write(number, b"x" * 1_000_000) for _ in range(100))"""
    checks = """
        for name in ("long", "many", "open_ones", "in_memory"):
            try: remote(name)()
            except OSError as error: print(name, error)
            else: raise SystemExit(name)"""
    came = run(program, mode, checks)
    assert came.status == "passed", came.stderr


def test_a_limit_cannot_be_raised_again(mode):
    program = """
        import resource
        def lift(name):
            most = resource.getrlimit(getattr(resource, name))[1]
            resource.setrlimit(getattr(resource, name), (most * 2, most * 2))"""
    names = [name for name in box.box_limits(1, 512) if name != "RLIMIT_CORE"]
    checks = f"""
        for name in {names!r}:
            try: remote("lift")(name)
            except (ValueError, OSError): continue
            raise SystemExit(name)"""
    came = run(program, mode, checks)
    assert came.status == "passed", came.stderr


def test_a_process_that_hides_from_its_group_ends_with_the_program(mode, mark):
    program = call_myself(mark) + textwrap.dedent("""
        import os, signal, time
        if not os.fork():
            os.setsid()
            if not os.fork():
                for number in range(1, 32):
                    try: signal.signal(number, signal.SIG_IGN)
                    except OSError: pass
                ctypes.CDLL(None).prctl(1, 0)
                time.sleep(60)
            os._exit(0)
        def double(number): return 2 * number""")
    assert run(program, mode).status == "passed"
    wait_for(lambda: not named(mark), 3)


def test_who_calls_and_is_killed_takes_the_sandbox_along(mode, mark, tmp_path):
    program = call_myself(mark) + "import os\nos.setsid() if os.getpid() != os.getsid(0) else None\nwhile True: pass"
    call = (f"from contemplative_cai.capability.sandbox import run_code\n"
            f"run_code({program!r}, 'remote(\"x\")()', seconds=30, mode={mode!r})")
    caller = subprocess.Popen([sys.executable, "-c", call], env=os.environ | {"TMPDIR": str(tmp_path)})
    wait_for(lambda: named(mark), 20)
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    wait_for(lambda: not named(mark), 5)


def test_many_at_once_do_not_disturb_each_other(mode):
    programs = [HONEST, "import os\nos._exit(0)"] * 6
    with ThreadPoolExecutor(4) as pool: came = list(pool.map(lambda program: run(program, mode, seconds=20), programs))
    assert [one.status for one in came] == ["passed", "failed"] * 6


# which sandbox

def test_where_a_sandbox_is_required_its_absence_fails_and_elsewhere_it_skips(monkeypatch):
    monkeypatch.setenv("CCAI_SANDBOX", "required")
    need_sandbox("")
    with pytest.raises(pytest.fail.Exception, match="CCAI_SANDBOX=required, and bwrap is installed and does not work"):
        need_sandbox("bwrap is installed and does not work here (No permissions)")
    monkeypatch.delenv("CCAI_SANDBOX")
    with pytest.raises(pytest.skip.Exception): need_sandbox("bwrap is not installed")


def test_one_that_is_installed_and_does_not_work_falls_through_and_is_told(monkeypatch):
    faults = {"bwrap": "bwrap is installed and does not work here (No permissions)", "unshare": ""}
    monkeypatch.setattr(sandbox, "_fault_of", faults.__getitem__)
    assert sandbox_mode().name == "unshare"
    assert sandbox_mode().why == "bwrap is installed and does not work here (No permissions); unshare works here"


def test_a_tool_that_refuses_is_not_used(monkeypatch, tmp_path):
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setattr(sandbox, "BOX_ENVIRONMENT", {"PATH": f"{tmp_path}:/usr/bin:/bin", "LANG": "C.UTF-8"})
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    fault = sandbox._fault_of.__wrapped__("bwrap")
    assert fault.startswith("bwrap is installed and does not work here (") and "No permissions" in fault


def test_without_a_sandbox_nothing_is_run_unless_that_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "_fault_of", lambda name: f"{name} is not installed")
    with pytest.raises(InputError, match="bwrap is not installed; unshare is not installed; install bubblewrap"):
        run_code(f"open('{tmp_path}/ran', 'w')", CHECKS)
    assert not list(tmp_path.iterdir())
    came = run_code(HONEST, CHECKS, allow_unsafe=True)
    assert (came.status, came.mode) == ("passed", "no sandbox")
    for cheat in ("sys.exit(0)", "os._exit(0)", "equal to everything", "patching json"):
        assert run_code(textwrap.dedent(CHEATS[cheat]), CHECKS, allow_unsafe=True).status == "failed"


def test_a_home_that_would_be_shown_is_not(monkeypatch):
    if sys.platform != "linux" or "not installed" in sandbox._fault_of("unshare"): pytest.skip("needs util-linux")
    monkeypatch.setattr(sandbox.Path, "home", lambda: Path("/usr/home"))
    assert "would show the home" in sandbox._fault_of.__wrapped__("unshare")


@pytest.mark.parametrize("program", ["", " \n", "a\0b", "x" * 1_000_001])
def test_what_is_no_program_is_refused_and_not_run(program):
    came = run_code(program, CHECKS, allow_unsafe=True)
    assert came.status == "refused" and came.seconds == 0 and came.stderr


@pytest.mark.parametrize("wrong", [{"seconds": 0}, {"seconds": float("nan")}, {"memory_mb": 1}, {"mode": "docker"}])
def test_a_wrong_setting_is_an_error(wrong):
    with pytest.raises(InputError, match="expected"): run_code(HONEST, CHECKS, allow_unsafe=True, **wrong)


def test_nothing_is_left_open_or_lying_about(mode, monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    for program in (HONEST, "import os\nos._exit(0)", "while True: pass"): run(program, mode, seconds=0.5)
    assert len(os.listdir("/proc/self/fd")) == before and not list(tmp_path.iterdir())


# boxes that do not come up

@pytest.mark.parametrize("broken", [0, 1], ids=["the program's", "the checks'"])
def test_a_box_that_does_not_come_up_is_no_failure_of_the_program(monkeypatch, broken):
    mode, made, boxed = sandbox_mode().name, [], sandbox.boxed_command
    def command(*args):
        made.append(args)
        return ["false"] if len(made) - 1 == broken else boxed(*args)
    monkeypatch.setattr(sandbox, "boxed_command", command)
    came = run_code(HONEST, CHECKS, mode=mode or None, allow_unsafe=True)
    assert (came.status, len(made)) == ("unstarted", 2)


def test_a_box_that_is_too_slow_is_told_apart_from_a_program_that_is(monkeypatch):
    monkeypatch.setattr(sandbox, "boxed_command", lambda *args: ["sleep", "9"])
    assert run_code(HONEST, CHECKS, seconds=0.2, allow_unsafe=True).status == "unstarted"


@pytest.mark.parametrize("error", ["StopIteration", "StopAsyncIteration"])
def test_an_error_that_would_end_the_checks_loop_ends_the_checks(mode, error):
    checks = "double = remote('double')\nassert all(map(lambda number: double(number) == 2 * number, range(5)))"
    came = run(f"def double(number): raise {error}", mode, checks)
    assert (came.status, "RuntimeError" in came.stderr) == ("failed", True)
