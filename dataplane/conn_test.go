// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// connPair returns two ends of a control connection.
func connPair(t *testing.T) (a, b *conn) {
	t.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*conn
	for i, fd := range pair {
		if ends[i], err = fileConn(fd); err != nil {
			t.Fatal(err)
		}
		if err := ends[i].sock.SetReadDeadline(time.Now().Add(wait)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].close() })
	}
	return ends[0], ends[1]
}

// someFDs returns n fds that the test closes.
func someFDs(t *testing.T, n int) []int {
	t.Helper()
	var fds []int
	for range n {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	t.Cleanup(func() { closeFDs(fds) })
	return fds
}

func TestMessagesArrive(t *testing.T) {
	leaksNoFD(t)
	for name, m := range map[string]message{
		"empty":                    {kind: kindPing, id: 1},
		"body":                     {kind: kindQuery, id: 1 << 60, body: []byte(`{"what":"fdb"}`)},
		"largest inline body":      {kind: kindApply, id: 2, body: bytes.Repeat([]byte("x"), maxInline)},
		"smallest body in a memfd": {kind: kindApply, id: 3, body: bytes.Repeat([]byte("x"), maxInline+1)},
		"largest body":             {kind: kindApply, id: 4, body: bytes.Repeat([]byte("x"), MaxBody)},
		"fds":                      {kind: kindPorts, id: 5, fds: someFDs(t, maxFDs)},
		"fds and a memfd": {
			kind: kindPorts, id: 6, fds: someFDs(t, maxFDs),
			body: bytes.Repeat([]byte("x"), maxInline+1),
		},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := connPair(t)
			if err := a.send(m, time.Now().Add(wait)); err != nil {
				t.Fatal(err)
			}
			got, err := b.recv()
			if err != nil {
				t.Fatal(err)
			}
			closeFDs(got.fds)
			if got.kind != m.kind || got.id != m.id || !bytes.Equal(got.body, m.body) || len(got.fds) != len(m.fds) {
				t.Errorf("kind %d, id %d, %d bytes, %d fds", got.kind, got.id, len(got.body), len(got.fds))
			}
		})
	}
}

func TestReceivedFDsCloseOnExec(t *testing.T) {
	a, b := connPair(t)
	if err := a.send(message{kind: kindPorts, fds: someFDs(t, 1)}, time.Now().Add(wait)); err != nil {
		t.Fatal(err)
	}
	m, err := b.recv()
	if err != nil {
		t.Fatal(err)
	}
	defer closeFDs(m.fds)
	if fl, err := unix.FcntlInt(uintptr(m.fds[0]), unix.F_GETFD, 0); err != nil || fl&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", fl, err)
	}
}

func TestSendRefuses(t *testing.T) {
	a, _ := connPair(t)
	for name, m := range map[string]message{
		"too many fds":   {kind: kindPorts, fds: make([]int, maxFDs+1)},
		"too large body": {kind: kindApply, body: make([]byte, MaxBody+1)},
	} {
		if err := a.send(m, time.Now().Add(wait)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSendGivesUp is a peer that does not read.
func TestSendGivesUp(t *testing.T) {
	a, _ := connPair(t)
	m := message{kind: kindApply, body: make([]byte, maxInline)}
	deadline := time.Now().Add(50 * time.Millisecond)
	for {
		if err := a.send(m, deadline); err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error(err)
			}
			return
		}
	}
}

// memfd returns an fd with the content and the seals, which the test closes.
func memfd(t *testing.T, content string, add int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("slt", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := writeAll(fd, []byte(content)); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, add); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestBodyIsSealed(t *testing.T) {
	fd, err := sealedBody([]byte("final"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.Pwrite(fd, []byte("F"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("write to a sealed body: %v", err)
	}
	if err := unix.Ftruncate(fd, 1); !errors.Is(err, unix.EPERM) {
		t.Errorf("truncate a sealed body: %v", err)
	}
}

// TestHostileDatagrams are what only an intruder sends. None may leave an fd
// behind, wait, or come through.
func TestHostileDatagrams(t *testing.T) {
	leaksNoFD(t)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeFDs(pipe[:]) })
	inMemfd := header{kind: kindReply, flags: flagMemfd, len: 5}.bytes()
	for name, tc := range map[string]struct {
		data []byte
		fds  []int
	}{
		"no message":                {[]byte("hello"), nil},
		"no message, but fds":       {[]byte("hello"), someFDs(t, 3)},
		"fds that are not counted":  {header{kind: kindPing}.bytes(), someFDs(t, 3)},
		"fds that did not come":     {header{kind: kindPorts, fds: 3}.bytes(), someFDs(t, 2)},
		"as many fds as the kernel": {header{kind: kindPorts, fds: 2}.bytes(), someFDs(t, 253)},
		"longer than any message":   {make([]byte, headerLen+maxInline+1000), someFDs(t, 1)},
		"memfd that did not come":   {inMemfd, nil},
		"memfd without seals":       {inMemfd, []int{memfd(t, "12345", 0)}},
		"memfd that may shrink":     {inMemfd, []int{memfd(t, "12345", seals&^unix.F_SEAL_SHRINK)}},
		"memfd of another size":     {inMemfd, []int{memfd(t, "1234", seals)}},
		"pipe in a memfd's place":   {inMemfd, []int{pipe[0]}},
		"socket in a memfd's place": {inMemfd, someFDs(t, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := connPair(t)
			var oob []byte
			if len(tc.fds) > 0 {
				oob = unix.UnixRights(tc.fds...)
			}
			if err := a.write(tc.data, oob, time.Now().Add(wait)); err != nil {
				t.Fatal(err)
			}
			before := fdsOf(t, os.Getpid())
			if m, err := b.recv(); !errors.Is(err, ErrProtocol) {
				t.Errorf("message %+v, error %v", m, err)
			}
			if after := fdsOf(t, os.Getpid()); after != before {
				t.Errorf("%d fds, %d before", after, before)
			}
		})
	}
}
