// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLetter: a message comes with one descriptor or with none. What else comes is an error,
// and leaves no descriptor open.
func TestLetter(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	var out, in letter
	var b [messageLen + 2]byte
	w := wire{kind: kindSocket, id: 7}
	w.encode((*[messageLen]byte)(b[:]))
	if _, err := in.next(&w, fds[1], unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("nothing: %v", err)
	}
	for _, pass := range []int{-1, 0} {
		w := wire{kind: kindSocket, id: 9}
		if err := out.send(&w, fds[0], pass, 0); err != nil {
			t.Fatal(err)
		}
		var got wire
		fd, err := in.next(&got, fds[1], 0)
		if err != nil || (fd >= 0) != (pass >= 0) || got.id != 9 {
			t.Errorf("descriptor %d came as %d, %+v, %v", pass, fd, got, err)
		}
		unix.Close(fd)
	}
	open := descriptors(t)
	for name, m := range map[string]struct {
		b   []byte
		oob []byte
	}{
		"too short":       {b[:messageLen-1], unix.UnixRights(0)},
		"too long":        {b[:messageLen+2], unix.UnixRights(0)},
		"two descriptors": {b[:messageLen], unix.UnixRights(0, 1)},
	} {
		if _, err := unix.SendmsgN(fds[0], m.b, m.oob, nil, 0); err != nil {
			t.Fatal(err)
		}
		if fd, err := in.next(&w, fds[1], 0); fd >= 0 || !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: descriptor %d, %v", name, fd, err)
		}
	}
	if n := descriptors(t); n > open { // those of earlier tests may have been closed meanwhile
		t.Errorf("%d descriptors were open, and %d are", open, n)
	}
	unix.Close(fds[0])
	if _, err := in.next(&w, fds[1], 0); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = out.send(&w, fds[1], -1, unix.MSG_DONTWAIT) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
