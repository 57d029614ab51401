"""What a generated program might try. Each prints ESCAPED where it got what it must not get.

Capital words are replaced by what the test has on this machine. Bombs end by themselves after a while, so that a hole
in the sandbox costs a test and not the machine.
"""

PREAMBLE = """
import ctypes, os, signal, socket, stat, struct, sys, time
libc = ctypes.CDLL(None, use_errno=True)
X86 = os.uname().machine == "x86_64"
def got(what): print("ESCAPED", repr(what)[:300], flush=True)
def attempt(function, *arguments):
    try: result = function(*arguments)
    except BaseException: return
    if not (isinstance(result, int) and result < 0): got((function, arguments, result))
def syscall(x86, arm, *arguments):
    return libc.syscall(x86 if X86 else arm, *arguments)
"""

FILES = {
    "shadow": "attempt(lambda: open('/etc/shadow').read())",
    "passwd": "attempt(lambda: open('/etc/passwd').read())",
    "canary": "attempt(lambda: open('CANARY').read())",
    "canary_through_proc": "attempt(lambda: open('/proc/1/root/CANARY').read())",
    "canary_by_dots": "attempt(lambda: open('/tmp/' + '../' * 40 + 'CANARY').read())",
    "canary_by_symlink": "os.symlink('CANARY', '/tmp/link'); attempt(lambda: open('/tmp/link').read())",
    "canary_by_hard_link": "attempt(os.link, 'CANARY', '/tmp/link')",
    "canary_written": "attempt(lambda: open('CANARY', 'a').write('changed'))",
    "canary_removed": "attempt(os.unlink, 'CANARY')",
    "canary_mode": "attempt(os.chmod, 'CANARY', 0o777)",
    "homes": "[attempt(os.listdir, path) for path in ('/root', '/home', '/etc', '/var', '/run', '/sys', '/mnt')]",
    "everything": """
for base, _, files in os.walk('/'):
    if not base.startswith(('/python', '/lib', '/usr/lib', '/dev')) and files: got((base, files))
""",
    "packages": "attempt(lambda: os.listdir(os.path.dirname(os.__file__) + '/site-packages')[0])",
    "interpreter": "attempt(lambda: open(sys.executable, 'ab')); attempt(lambda: open(os.__file__, 'a'))",
    "interpreter_replaced": "attempt(os.rename, '/python/bin/python3', '/python/bin/old')",
    "runner": "attempt(lambda: open('/python/sandboxed.py', 'a')); attempt(os.unlink, '/python/sandboxed.py')",
    "bytecode": "attempt(os.makedirs, os.path.dirname(os.__file__) + '/planted')",
    "root_directory": "[attempt(lambda: open(d + '/x', 'w')) for d in ('', '/usr', '/lib', '/dev', '/python')]",
    "inherited_directories": """
for fd in range(1024):
    try: mode = os.fstat(fd).st_mode
    except OSError: continue
    if stat.S_ISDIR(mode): got(os.listdir(fd))
""",
    "open_by_handle": "attempt(syscall, 304, 265, -100, struct.pack('II8x', 8, 1), 0)",
    "devices": """
for name in ('mem', 'kmem', 'kmsg', 'port', 'sda', 'vda', 'nvme0n1', 'tty', 'ptmx', 'shm', 'fuse', 'kvm', 'net/tun'):
    attempt(os.stat, '/dev/' + name)
""",
    "device_made": "attempt(os.mknod, '/tmp/disk', stat.S_IFBLK | 0o666, os.makedev(254, 0))",
    "environment": """
attempt(lambda: os.environ['SANDBOX_SECRET'])
got(dict(os.environ)) if 'HUNTER' in str(os.environ) else 0
""",
    "environment_of_others": """
for p in ('self', 1, 'HOST_PID'): attempt(lambda: open(f'/proc/{p}/environ', 'rb').read())
""",
    "environment_in_memory": """
p = ctypes.POINTER(ctypes.c_char_p).in_dll(libc, 'environ')
i = 0
while p and p[i]:
    if b'HUNTER' in p[i]: got(p[i])
    i += 1
""",
    "proc": "attempt(os.listdir, '/proc'); attempt(os.listdir, '/proc/self/fd')",
}

RIGHTS = {
    "setuid": "attempt(os.setuid, 0); attempt(os.setresuid, 0, 0, 0); attempt(os.seteuid, 0)",
    "setgid": "attempt(os.setgid, 0); attempt(os.setgroups, [0])",
    "setuid_file": """
import shutil, subprocess
shutil.copy(sys.executable, '/tmp/python'); attempt(os.chown, '/tmp/python', 0, 0); os.chmod('/tmp/python', 0o6777)
command = ['/tmp/python', '-S', '-c', 'import os; print(os.geteuid())']
out = subprocess.run(command, capture_output=True, text=True).stdout
if out.strip() == '0': got(out)
""",
    "identity": "got(os.getresuid()) if 0 in os.getresuid() + os.getresgid() + tuple(os.getgroups()) else 0",
    "capabilities": """
data = ctypes.create_string_buffer(24)
libc.capget(struct.pack('Ii', 0x20080522, 0), data)
if any(struct.unpack('6I', data.raw)): got(data.raw)
if libc.prctl(39, 0, 0, 0, 0) != 1: got('new privileges')
attempt(libc.capset, struct.pack('Ii', 0x20080522, 0), struct.pack('6I', *[0xffffffff] * 6))
""",
    "chroot": "os.mkdir('/tmp/x'); attempt(os.chroot, '/tmp/x')",
    "pivot_root": "os.mkdir('/tmp/x'); attempt(syscall, 155, 41, b'/tmp', b'/tmp/x')",
    "mount": "attempt(libc.mount, b'none', b'/tmp', b'tmpfs', 0, None)",
    "mount_proc": "os.mkdir('/tmp/p'); attempt(libc.mount, b'proc', b'/tmp/p', b'proc', 0, None)",
    "remount": """
attempt(libc.mount, None, b'/', None, 32 | 4096, None)
attempt(libc.mount, None, b'/python/lib', None, 32, None)
""",
    "unmount": "attempt(libc.umount2, b'/python/lib', 2); attempt(libc.umount2, b'/', 2)",
    "new_mount_calls": "attempt(syscall, 428, 428, -100, b'/', 1); attempt(syscall, 430, 430, b'tmpfs', 0)",
    "unshare": "[attempt(libc.unshare, flag) for flag in (0x10000000, 0x20000, 0x20000000, 0x40000000)]",
    "clone_name_spaces": "attempt(syscall, 56, 220, 0x10000000 | 17, 0, 0, 0, 0)",
    "clone3_name_spaces": "attempt(syscall, 435, 435, struct.pack('8Q', 0x10000000, 0, 0, 0, 17, 0, 0, 0), 64)",
    "setns": "attempt(lambda: libc.setns(os.open('/proc/1/ns/mnt', 0), 0)); attempt(libc.setns, 0, 0)",
    "nice": "attempt(os.nice, -5); attempt(os.setpriority, os.PRIO_PROCESS, 0, -10)",
    "scheduler": "attempt(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(50))",
    "limits_raised": """
import resource
for kind in ('AS', 'NPROC', 'CPU', 'FSIZE', 'CORE'):
    attempt(resource.setrlimit, getattr(resource, 'RLIMIT_' + kind), (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
""",
    "host_name": "attempt(socket.sethostname, 'mine'); got(os.uname()) if os.uname().nodename == 'HOST_NAME' else 0",
    "clock": "attempt(time.clock_settime, time.CLOCK_REALTIME, 0)",
    "reboot": "attempt(libc.reboot, 0x4321fedc)",
    "keyring": "attempt(syscall, 250, 219, 0, -3, 0); attempt(syscall, 248, 217, b'user', b'k', b'v', 1, -3)",
    "bpf": "attempt(syscall, 321, 280, 0, struct.pack('IIII', 1, 4, 4, 1), 16)",
    "perf": "attempt(syscall, 298, 241, ctypes.create_string_buffer(128), 0, -1, -1, 0)",
    "io_uring": "attempt(syscall, 425, 425, 8, ctypes.create_string_buffer(120))",
    "userfaultfd": "attempt(syscall, 323, 282, 1)",
    "kernel_log": "attempt(libc.klogctl, 3, ctypes.create_string_buffer(4096), 4096)",
    "personality": "attempt(libc.personality, 0x0040000)",
    "terminal_input": """
import fcntl
for fd in range(64): attempt(fcntl.ioctl, fd, 0x5412, b'x')
attempt(lambda: open('/dev/tty', 'w'))
""",
    "foreign_abi": "attempt(libc.syscall, 41 | 0x40000000, 2, 1, 0) if X86 else None",
}

PROCESSES = {
    "ptrace_parent": "attempt(libc.ptrace, 16, 1, 0, 0); attempt(libc.ptrace, 0x4206, 1, 0, 0)",
    "memory_of_parent": """
attempt(lambda: open('/proc/1/mem', 'rb').read(1))
buffer = ctypes.create_string_buffer(8)
vector = struct.pack('PN', ctypes.addressof(buffer), 8)
attempt(syscall, 310, 270, 1, vector, 1, vector, 1, 0)
""",
    "descriptors_of_parent": "attempt(lambda: syscall(438, 438, os.pidfd_open(1), 0, 0))",
    "kill_first": "os.kill(1, signal.SIGKILL); os.kill(1, signal.SIGSTOP); os.kill(1, signal.SIGTERM)",
    "kill_all": "os.kill(-1, signal.SIGKILL)",
    "kill_host": "attempt(os.kill, HOST_PID, signal.SIGKILL)",
    "kill_by_number": "[attempt(os.kill, pid, 0) for pid in range(3, 3000) if pid != os.getpid()]",
    "fork_bomb": """
until, deep = time.time() + 3, 0
while time.time() < until and deep < 10:
    try:
        if os.fork() == 0: deep += 1
    except OSError: time.sleep(0.01)
""",
    "fork_count": """
count = 0
try:
    while count < 300:
        if os.fork() == 0: time.sleep(5); os._exit(0)
        count += 1
except OSError: pass
if count > 16: got(count)
""",
    "thread_bomb": """
import threading
count = 0
try:
    while count < 300:
        threading.Thread(target=time.sleep, args=(5,), daemon=True).start()
        count += 1
except RuntimeError: pass
if count > 16: got(count)
os._exit(0)
""",
    "sleeping_children": """
for _ in range(5):
    if os.fork() == 0: time.sleep(20); os._exit(0)
os._exit(0)
""",
    "daemon": """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 1024)
        for s in range(1, 32):
            try: signal.signal(s, signal.SIG_IGN)
            except (OSError, ValueError): pass
        time.sleep(20)
    os._exit(0)
os._exit(0)
""",
    "busy_loop": "while True: pass",
    "sleep_for_ever": "while True: time.sleep(1000)",
    "ignored_signals": """
for s in (signal.SIGTERM, signal.SIGALRM, signal.SIGXCPU, signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
    signal.signal(s, signal.SIG_IGN)
while True: pass
""",
    "regular_expression": "import re; re.match('(a|a)*$', 'a' * 60 + 'b')",
    "power": "x = 3 ** (10 ** 9)",
    "stopped": "os.kill(os.getpid(), signal.SIGSTOP)",
    "recursion": "sys.setrecursionlimit(10 ** 9)\ndef f(): return f()\nf()",
    "c_stack": "import json; sys.setrecursionlimit(10 ** 9)\nx = []\nfor _ in range(10 ** 6): x = [x]\nrepr(x)",
    "segfault": "ctypes.string_at(0)",
    "huge_arguments": """
attempt(os.execv, sys.executable, [sys.executable, '-c', 'print("ESCAPED")'] + ['x' * 100_000] * 100)
""",
    "descriptors_closed": "os.closerange(0, 65536)",
    "descriptors_many": "fds = [os.open('/dev/null', 0) for _ in range(100)]; got(len(fds))",
}

AMOUNTS = {
    "memory_at_once": "x = bytearray(1 << 30); got(len(x))",
    "memory_in_small_pieces": "x = []\nfor _ in range(1 << 26): x.append(object())\ngot(len(x))",
    "memory_mapped": """
import mmap
m = mmap.mmap(-1, 1 << 30); m[::4096] = b'x' * ((1 << 30) // 4096); got(len(m))
""",
    "memory_of_children": """
for _ in range(8):
    if os.fork() == 0:
        x = bytearray(150 << 20); x[::4096] = b'x' * len(x[::4096]); time.sleep(5); os._exit(0)
time.sleep(3); got('1.2 GB')
""",
    "memory_by_string": "x = 'a' * (1 << 20)\nfor _ in range(11): x += x\ngot(len(x))",
    "memory_without_name": "fd = os.memfd_create('x'); got(os.write(fd, b'x'))",
    "memory_shared": "attempt(libc.shmget, 0, 1 << 28, 0o1600); attempt(lambda: open('/dev/shm/x', 'w'))",
    "disk_full": """
total = 0
try:
    for i in range(300):
        with open(f'/tmp/{i}', 'wb') as out: total += out.write(b'x' * (1 << 20))
except OSError: pass
if total > 17 << 20: got(total)
""",
    "disk_one_file": """
out = open('/tmp/x', 'wb')
try:
    for _ in range(300): out.write(b'x' * (1 << 20)); out.flush()
except OSError: pass
if os.path.getsize('/tmp/x') > 17 << 20: got(os.path.getsize('/tmp/x'))
""",
    "disk_sparse": """
out = open('/tmp/x', 'wb')
attempt(out.truncate, 1 << 40)
attempt(os.posix_fallocate, out.fileno(), 0, 1 << 30)
""",
    "disk_deleted": """
files, total = [], 0
try:
    for _ in range(40):
        files.append(open('/tmp/x', 'wb', 0)); os.unlink('/tmp/x'); total += files[-1].write(b'x' * (1 << 20))
except OSError: pass
if total > 17 << 20: got(total)
""",
    "files_many": """
for i in range(300_000): os.close(os.open(f'/tmp/{i}', os.O_CREAT))
got(i)
""",
    "directories_deep": """
for _ in range(300_000): os.mkdir('d'); os.chdir('d')
got('deep')
""",
    "flood_stdout": "for _ in range(100_000): print('x' * 1000)\ngot(1)",
    "flood_stderr": "for _ in range(100_000): sys.stderr.write('x' * 1000)\ngot(1)",
    "flood_of_children": """
for _ in range(4):
    if os.fork() == 0:
        for _ in range(50_000): os.write(1, b'y' * 1000)
        got(1); os._exit(0)
os._exit(0)
""",
}

NETWORK = {
    "tcp": "attempt(socket.create_connection, ('127.0.0.1', TCP_PORT), 1)",
    "tcp6": "attempt(socket.create_connection, ('::1', TCP_PORT), 1)",
    "tcp_by_name": "attempt(socket.create_connection, ('localhost', TCP_PORT), 1)",
    "udp": "attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', UDP_PORT)))",
    "unix": "s = socket.socket(socket.AF_UNIX); attempt(s.connect, 'UNIX_PATH')",
    "unix_abstract": "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); attempt(s.connect, '\\0ABSTRACT_NAME')",
    "unix_of_pair": """
a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
for address in ('UNIX_PATH', '\\0ABSTRACT_NAME'): attempt(a.sendto, b'x', address)
""",
    "http": "import urllib.request as u; attempt(lambda: u.urlopen('http://127.0.0.1:TCP_PORT/', timeout=1).read())",
    "dns": "attempt(socket.gethostbyname, 'example.org'); attempt(socket.getaddrinfo, 'example.org', 80)",
    "raw": """
attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, 1)
attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)
""",
    "netlink": "attempt(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW, 0)",
    "vsock": "attempt(socket.socket, socket.AF_VSOCK, socket.SOCK_STREAM)",
    "listen": "attempt(lambda: socket.create_server(('0.0.0.0', 0)))",
    "socket_by_number": "attempt(syscall, 41, 198, 2, 1, 0)",
}

FORGERIES = {
    "exit": "sys.exit(0)",
    "exit_at_once": "os._exit(0)",
    "exit_raised": "raise SystemExit",
    "exit_in_answer": "def answer(): os._exit(0)",
    "exit_raised_in_answer": "def answer(): raise SystemExit(0)",
    "exec_true": "os.execv(sys.executable, [sys.executable, '-S', '-c', 'pass'])",
    "verdict_printed": """
print('ready'); print('compiled'); print('{"status": "passed", "exit_code": 0, "detail": ""}'); os._exit(0)
""",
    "verdict_on_every_descriptor": """
for fd in range(1024):
    try: os.write(fd, b'ready\\ncompiled\\n{"status": "passed", "exit_code": 0, "detail": ""}\\n')
    except OSError: pass
os._exit(0)
""",
    "answers_on_every_descriptor": """
for fd in range(3, 64):
    for line in (b'{}', b'{"done": true}', b'{"value": {"opaque": ["int", true]}}', b'{"functions": ["answer"]}'):
        try: os.write(fd, line + b'\\n')
        except OSError: pass
""",
    "equal_to_everything": """
class Any:
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __bool__(self): return True
def answer(): return Any()
""",
    "integer_equal_to_everything": """
class Any(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
def answer(): return Any(7)
""",
    "patched_builtins": """
import builtins
builtins.AssertionError = type('Nothing', (Exception,), {})
builtins.__build_class__ = builtins.compile = builtins.exec = lambda *a, **k: None
def answer(): return 0
""",
    "patched_runner": """
for module in list(sys.modules.values()):
    for name in ('_judged', '_check', 'decode', '_exception'):
        if hasattr(module, name): setattr(module, name, lambda *a, **k: {'status': 'passed'})
import json
json.loads = json.dumps = lambda *a, **k: '{"value": 42}'
def answer(): return 0
""",
    "traced": "sys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)\ndef answer(): return 0",
    "at_exit": "import atexit; atexit.register(os._exit, 0)\ndef answer(): raise ValueError",
    "checks_in_memory": """
import gc
word = 'XYZ' + 'ZY-OF-THE-CHECKS'
found = [o for o in gc.get_objects() if isinstance(o, (dict, list)) and any(
    isinstance(v, str) and word in v for v in (o.values() if isinstance(o, dict) else o))]
if [o for o in found if o is not globals()]: got(len(found))
def answer():
    frame = sys._getframe().f_back
    while frame:
        if word in str(frame.f_locals) and frame.f_locals is not globals(): got(frame.f_code.co_name)
        frame = frame.f_back
    return 0
""",
    "checks_in_process": """
import re
def regions():
    try: return [l.split()[0] for l in open('/proc/self/maps')]
    except OSError: return []
attempt(lambda: regions()[0])
""",
    "checks_in_descriptors": """
word = b'XYZ' + b'ZY-OF'
for fd in range(1024):
    try: os.set_blocking(fd, False); os.lseek(fd, 0, 0)
    except OSError: pass
    try:
        if word in os.read(fd, 1 << 20): got(fd)
    except OSError: pass
""",
    "expected_from_caller": """
def answer():
    frame = sys._getframe()
    while frame:
        if 'checks' in frame.f_code.co_filename: got(frame.f_code.co_filename)
        frame = frame.f_back
""",
    "names_of_the_checks": """
def check(*a): return True
def int(*a): return 42
sum = abs = print = all = isinstance = lambda *a: True
def answer(): return 0
""",
    "stopped_checker": "os.kill(os.getppid(), signal.SIGSTOP); os._exit(0)",
    "nonsense_answered": """
def answer():
    for fd in range(3, 64):
        try: os.write(fd, b'{"value": ' + b'[' * 100_000 + b'\\n')
        except OSError: pass
    return 0
""",
}

ESCAPES = {
    f"{group}-{name}": PREAMBLE + source
    for group, entries in {
        "files": FILES, "rights": RIGHTS, "processes": PROCESSES, "amounts": AMOUNTS, "network": NETWORK,
        "forgeries": FORGERIES,
    }.items()
    for name, source in entries.items()
}  # fmt: skip
"""Name → program."""
