// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"sluice/trace"
)

// busy is a dataplane with everything in it: a control path, counters, ports
// that have seen traffic.
func busy(t *testing.T) (*Client, []*cable) {
	t.Helper()
	cfg := listening(t)
	counters, err := trace.CreateCounters(cfg.Listen+".counters", 16)
	if err != nil {
		t.Fatal(err)
	}
	defer counters.Close()
	cfg.Counters = counters
	cfg.Connections = connFileAt(t, cfg.Listen+".connections")
	if cfg.Stderr, err = os.Create(cfg.Listen + ".stderr"); err != nil {
		t.Fatal(err)
	}
	defer cfg.Stderr.Close()
	c := starts(t, cfg)
	ports := plugAll(t, 3)
	applies(t, c, 1, ports...)
	talk(t, ports[0], ports[1], "busy")
	return c, ports
}

// statusOf reads /proc/PID/status of one thread.
func statusOf(t *testing.T, path string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path, "status"))
	if err != nil {
		t.Fatal(err)
	}
	fields := make(map[string]string)
	for sc := bufio.NewScanner(strings.NewReader(string(b))); sc.Scan(); {
		k, v, _ := strings.Cut(sc.Text(), ":")
		fields[k] = strings.TrimSpace(v)
	}
	return fields
}

// TestEveryThreadIsPowerless is the point of the two stages.
func TestEveryThreadIsPowerless(t *testing.T) {
	c, _ := busy(t)
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", c.PID()))
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads %v, %v", tasks, err)
	}
	id := strconv.Itoa(DefaultUID)
	none, nobody := "0000000000000000", strings.Join([]string{id, id, id, id}, "\t")
	want := map[string]string{
		"CapInh": none, "CapPrm": none, "CapEff": none, "CapBnd": none, "CapAmb": none,
		"NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": strconv.Itoa(len(restrictions(1, false)) + 1),
		"Uid": nobody, "Gid": nobody, "Groups": "",
	}
	for _, task := range tasks {
		got := statusOf(t, task)
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s: %s is %q, want %q", task, k, got[k], v)
			}
		}
	}
}

func TestNamespacesAreItsOwn(t *testing.T) {
	c, _ := busy(t)
	for _, ns := range []string{"mnt", "net", "ipc", "uts", "pid"} {
		own, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			t.Fatal(err)
		}
		its, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", c.PID(), ns))
		if err != nil || its == own {
			t.Errorf("namespace %s is %s, and its agent's %s: %v", ns, its, own, err)
		}
	}
	st := statusOf(t, fmt.Sprintf("/proc/%d", c.PID()))
	if got := strings.Fields(st["NSpid"]); len(got) != 2 || got[1] != "1" {
		t.Errorf("NSpid %v: not process 1 of its own", got)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", c.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(b)), "\n"); len(lines) != 3 || !strings.Contains(lines[2], "lo:") {
		t.Errorf("interfaces:\n%s", b)
	}
	// An interface that is up has an address of its own: ::1 for lo.
	b, err = os.ReadFile(fmt.Sprintf("/proc/%d/net/if_inet6", c.PID()))
	if err != nil || len(b) != 0 {
		t.Errorf("addresses %q, %v", b, err)
	}
}

func TestRootIsEmptyAndReadOnly(t *testing.T) {
	c, _ := busy(t)
	root := fmt.Sprintf("/proc/%d/root/", c.PID())
	entries, err := os.ReadDir(root)
	if err != nil || len(entries) != 0 {
		t.Errorf("root directory has %v, %v", entries, err)
	}
	if err := os.WriteFile(root+"file", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing into the root directory: %v", err)
	}
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", c.PID()))
	if err != nil || cwd != "/" {
		t.Errorf("working directory %q, %v", cwd, err)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", c.PID()))
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Split(strings.TrimSpace(string(b)), "\n"); len(lines) != 1 {
		t.Errorf("mounts:\n%s", b)
	}
}

func TestOnlyGivenFDs(t *testing.T) {
	c, ports := busy(t)
	dir := fmt.Sprintf("/proc/%d/fd", c.PID())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	harmless := regexp.MustCompile(`^(socket:\[\d+\]|anon_inode:\[(eventpoll|eventfd|timerfd)\]|/dev/null|/.*\.(counters|connections|stderr))( \(deleted\))?$`)
	sockets := 0
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || !harmless.MatchString(to) {
			t.Errorf("fd %s is %q, %v", e.Name(), to, err)
		}
		if strings.HasPrefix(to, "socket:") {
			sockets++
		}
		isStderr, isNull := strings.HasSuffix(to, ".stderr"), to == os.DevNull
		if n, _ := strconv.Atoi(e.Name()); isStderr != (n == 2) || isNull != (n < 2) {
			t.Errorf("fd %d is %q", n, to)
		}
	}
	// The ports, the control connection, and the listener.
	if want := len(ports) + 2; sockets != want {
		t.Errorf("%d sockets, want %d", sockets, want)
	}
}

// TestStdioIsNotShared: nothing to read, and nothing of the agent's to move.
func TestStdioIsNotShared(t *testing.T) {
	c, _ := busy(t)
	for fd, want := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_WRONLY | unix.O_APPEND} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", c.PID(), fd))
		if err != nil {
			t.Fatal(err)
		}
		var pos, flags int
		if _, err := fmt.Sscanf(string(b), "pos:\t%d\nflags:\t%o", &pos, &flags); err != nil {
			t.Fatal(err)
		}
		if got := flags & (unix.O_ACCMODE | unix.O_APPEND); got != want {
			t.Errorf("fd %d is open with %#o, want %#o", fd, got, want)
		}
	}
}

func TestLimits(t *testing.T) {
	c, _ := busy(t)
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", c.PID()))
	if err != nil {
		t.Fatal(err)
	}
	var may unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &may); err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"Max core file size": 0, "Max file size": MaxBody, "Max open files": maxFiles}
	if has, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_RESOURCE, 0, 0, 0); err == nil && has == 0 {
		want["Max open files"] = min(maxFiles, int(may.Max))
	}
	for name, v := range want {
		if !regexp.MustCompile(fmt.Sprintf(`(?m)^%s +%d +%d `, name, v, v)).Match(b) {
			t.Errorf("%s is not %d:\n%s", name, v, b)
		}
	}
}

func TestNotDumpable(t *testing.T) {
	c, _ := busy(t)
	// The owner of /proc/PID is root and not nobody if it is not (proc(5)).
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/mem", c.PID()), &st); err != nil || st.Uid != 0 {
		t.Errorf("owner of its memory is %d, %v", st.Uid, err)
	}
}

// TestNeverDumpable looks at the moment before the process can say so itself, when
// another process of its user could open its memory for writing.
func TestNeverDumpable(t *testing.T) {
	needRoot(t)
	leaksNoFD(t)
	cn, p, err := spawn(StartConfig{UID: DefaultUID}, &controlPath{fd: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer cn.close()
	defer p.kill()
	if err := awaitLoaded(soon(t), cn, p); err != nil {
		t.Fatal(err)
	}
	dir := fmt.Sprintf("/proc/%d", p.pid)
	var st unix.Stat_t
	if err := unix.Stat(dir+"/mem", &st); err != nil || st.Uid != 0 {
		t.Errorf("owner of its memory is %d, %v", st.Uid, err)
	}
	if b, err := os.ReadFile(dir + "/comm"); err != nil || string(b) != "sluice-data\n" {
		t.Errorf("it is called %q, %v", b, err)
	}
	err = onLostThread(func() error {
		if err := rawSyscall(unix.SYS_SETRESUID, DefaultUID, DefaultUID, DefaultUID); err != nil {
			return err
		}
		fd, err := unix.Open(dir+"/mem", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == nil {
			unix.Close(fd)
		}
		return err
	})
	if !errors.Is(err, unix.EACCES) {
		t.Errorf("a process of its user opens its memory: %v", err)
	}
}

func TestSession(t *testing.T) {
	c, _ := busy(t)
	sid, err := unix.Getsid(c.PID())
	if err != nil || sid != c.PID() {
		t.Errorf("session %d of process %d, %v", sid, c.PID(), err)
	}
}

func TestControlPathIsPrivate(t *testing.T) {
	cfg := listening(t)
	starts(t, cfg)
	fi, err := os.Stat(cfg.Listen)
	if err != nil || fi.Mode() != os.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if _, err := os.Stat(cfg.Listen + beside); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket's first name is left: %v", err)
	}
}

// TestSignals are those that a terminal or a broken connection sends.
func TestSignals(t *testing.T) {
	c, ports := busy(t)
	for _, sig := range []unix.Signal{unix.SIGHUP, unix.SIGPIPE, unix.SIGINT, unix.SIGUSR1, unix.SIGUSR2} {
		if err := c.proc.signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Ping(soon(t)); err != nil {
		t.Fatal(err)
	}
	talk(t, ports[0], ports[1], "still there")
	if err := c.proc.signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	if err := c.Err(); !errors.Is(err, ErrExited) || !strings.Contains(err.Error(), "exit status 0") {
		t.Errorf("after SIGTERM: %v", err)
	}
}

// TestPanicIsFound uses the runtime's own last words: SIGQUIT makes it print all
// goroutines and die.
func TestPanicIsFound(t *testing.T) {
	cfg := listening(t)
	var err error
	if cfg.Stderr, err = os.Create(cfg.Listen + ".stderr"); err != nil {
		t.Fatal(err)
	}
	defer cfg.Stderr.Close()
	c := starts(t, cfg)
	applies(t, c, 1, plugAll(t, 2)...)
	if b, err := os.ReadFile(cfg.Stderr.Name()); err != nil || len(b) != 0 {
		t.Errorf("a process that is well wrote %q, %v", b, err)
	}
	if err := c.proc.signal(unix.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	b, err := os.ReadFile(cfg.Stderr.Name())
	if err != nil || !strings.Contains(string(b), "dataplane.(*server).run") {
		t.Errorf("last words %q, %v", b, err)
	}
	if !strings.Contains(c.Err().Error(), "exit status 2") {
		t.Errorf("after SIGQUIT: %v", c.Err())
	}
}

// TestNobodyMayCommand lets a user who can reach the path, but is neither root
// nor the one who started the process, try.
func TestNobodyMayCommand(t *testing.T) {
	leaksNoFD(t)
	cfg := listening(t)
	c := starts(t, cfg)
	for path, mode := range map[string]os.FileMode{filepath.Dir(cfg.Listen): 0o755, cfg.Listen: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	err := onLostThread(func() error {
		if err := rawSyscall(unix.SYS_SETRESUID, 1000, 1000, 1000); err != nil {
			return err
		}
		n, err := connect(cfg.Listen)
		if err == nil {
			n.Close()
		}
		return err
	})
	if err == nil || errors.Is(err, ErrNotRunning) || errors.Is(err, unix.EACCES) {
		t.Errorf("another user's connection: %v", err)
	}
	if err := c.Ping(soon(t)); err != nil {
		t.Errorf("the agent was disturbed: %v", err)
	}
}

func TestMainRefusesPeople(t *testing.T) {
	for name, args := range map[string][]string{
		"nothing":         nil,
		"a wrong stage":   {"-stage=3"},
		"an unknown flag": {"-stage=1", "-color"},
		"words":           {"-stage=2", "please"},
	} {
		if code := Main(args); code != 2 {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
}
