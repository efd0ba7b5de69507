// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another agent uses the same directories.
var ErrLocked = errors.New("another sluiced is running here")

// runDir is where one agent keeps what a reboot may forget. Two agents with
// different directories do not know of each other.
//
//	lock            flock(2) held while the agent lives; the kernel drops it
//	sluiced.sock    the API
//	dataplane.sock  where a later agent finds the running dataplane
//	counters        the shared-memory table of port counters
//	connections     the table of connections that outlives the dataplane
//	netns/sluice    bind mount of the namespace of the host ends
//	state-dir       the path of the state directory that belongs to all this
type runDir string

// maxRunDir keeps the longest socket path inside sockaddr_un (108 bytes), with
// room for the temporary names that a replacement goes through.
const maxRunDir = 80

func (d runDir) apiSocket() string       { return filepath.Join(string(d), "sluiced.sock") }
func (d runDir) dataplaneSocket() string { return filepath.Join(string(d), "dataplane.sock") }
func (d runDir) counters() string        { return filepath.Join(string(d), "counters") }
func (d runDir) connections() string     { return filepath.Join(string(d), "connections") }
func (d runDir) counted() string         { return filepath.Join(string(d), "counted") }
func (d runDir) hostNS() string          { return filepath.Join(string(d), "netns", "sluice") }
func (d runDir) stateNote() string       { return filepath.Join(string(d), "state-dir") }

// lock makes the directory, which only its owner may enter, and takes its lock.
// The caller keeps the file open as long as it uses the directory. Children do
// not inherit it: a dataplane must not keep the next agent out.
func (d runDir) lock() (*os.File, error) {
	if len(d) > maxRunDir {
		return nil, fmt.Errorf("run directory %s: the path is longer than %d bytes", d, maxRunDir)
	}
	if err := makePrivate(string(d)); err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(string(d), "lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w", err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return f, nil
	}
	f.Close()
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, d)
	}
	return nil, fmt.Errorf("lock %s: %w", d, err)
}

// lockPatience is how long a lock may take to become free that nobody means to hold.
const lockPatience = time.Second

// lockSoon is lock, which waits a moment: a child of an agent that was killed has the
// lock with it until it executes its program.
func (d runDir) lockSoon() (*os.File, error) {
	for end := time.Now().Add(lockPatience); ; time.Sleep(lockRetry) {
		f, err := d.lock()
		if !errors.Is(err, ErrLocked) || time.Now().After(end) {
			return f, err
		}
	}
}

// makePrivate makes a directory, or accepts one that nobody else can put anything
// into: sockets are answered and state is believed because of where they are.
func makePrivate(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("%s: must be a directory and no symbolic link: %w", dir, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	switch {
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%s: belongs to user %d, not to %d", dir, st.Uid, os.Geteuid())
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s: mode %04o lets others write", dir, st.Mode&0o7777)
	}
	return nil
}

// noteState writes down which state directory an agent here uses: without it,
// nobody else could tell which of the pairs are in use.
func (d runDir) noteState(stateDir string) error {
	next := d.stateNote() + ".new"
	if err := os.WriteFile(next, []byte(stateDir), 0o600); err != nil {
		return err
	}
	return os.Rename(next, d.stateNote())
}

// notedState returns what noteState wrote. Empty: no agent was ever here.
func (d runDir) notedState() (string, error) {
	text, err := os.ReadFile(d.stateNote())
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}

// belongsTo refuses a state directory that is not the noted one, as long as that
// one still has its file: an agent that knew nothing of the pairs in use would
// remove them all.
func (d runDir) belongsTo(stateDir string) error {
	noted, err := d.notedState()
	if err != nil || noted == "" || samePath(noted, stateDir) {
		return err
	}
	if _, err := os.Stat(stateFile(noted)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return fmt.Errorf("--state-dir %s: what is in %s keeps its state in %s", stateDir, d, noted)
}

// stateFile is the one file in the state directory, which outlives a reboot.
func stateFile(dir string) string { return filepath.Join(dir, "state.db") }
