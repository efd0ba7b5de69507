// SPDX-License-Identifier: Apache-2.0

package dial

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLetter: a message comes with as many descriptors as its kind may have. What else comes is an error,
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
	for kind, pass := range map[uint8][]int32{kindRequest: nil, kindSocket: {0}, kindStock: make([]int32, stockLen)} {
		w := wire{kind: kind, id: 9}
		if err := out.send(&w, fds[0], 0, pass...); err != nil {
			t.Fatal(err)
		}
		var got wire
		came, err := in.next(&got, fds[1], 0)
		if err != nil || len(came) != len(pass) || got.id != 9 {
			t.Errorf("descriptors %d came as %d, %+v, %v", pass, came, got, err)
		}
		closeAll(came)
	}
	open := descriptors(t)
	for name, m := range map[string]struct {
		b   []byte
		oob []byte
	}{
		"too short":       {b[:messageLen-1], unix.UnixRights(0)},
		"too long":        {b[:messageLen+2], unix.UnixRights(0)},
		"two descriptors": {b[:messageLen], unix.UnixRights(0, 1)},
		"too many":        {b[:messageLen], unix.UnixRights(make([]int, stockLen+1)...)},
	} {
		if _, err := unix.SendmsgN(fds[0], m.b, m.oob, nil, 0); err != nil {
			t.Fatal(err)
		}
		if came, err := in.next(&w, fds[1], 0); len(came) > 0 || !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: descriptors %d, %v", name, came, err)
		}
	}
	if n := descriptors(t); n > open { // those of earlier tests may have been closed meanwhile
		t.Errorf("%d descriptors were open, and %d are", open, n)
	}
	unix.Close(fds[0])
	if _, err := in.next(&w, fds[1], 0); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = out.send(&w, fds[1], unix.MSG_DONTWAIT) }); n != 0 {
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
