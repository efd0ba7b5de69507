// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Program is a copy of a program in memory, to start dataplanes from.
//
// It is a memfd (memfd_create(2)) that nobody can change any more, and that the
// dataplane's user may execute but not read: from execve(2) on, the kernel lets no
// other process of that user look into one (PR_SET_DUMPABLE(2const)). The file on
// disk has no part in it, whatever its mode is or becomes of it. It costs its size
// in memory, about 20 MB, once for all dataplanes that were started from it.
type Program struct{ file *os.File }

// programMode is read and execute for the agent, and execute for the dataplane.
const programMode = 0o511

// LoadProgram copies the program at path; empty means this one, also if its file
// was replaced meanwhile. The caller closes it; dataplanes keep what they need.
func LoadProgram(path string) (*Program, error) {
	if path == "" {
		path = self
	}
	from, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	defer from.Close()
	fd, err := programFD()
	if err != nil {
		return nil, fmt.Errorf("load program: memfd_create (is sysctl vm.memfd_noexec 2?): %w", err)
	}
	p := &Program{file: os.NewFile(uintptr(fd), "program")}
	if _, err = io.Copy(p.file, from); err == nil {
		err = unix.Fchmod(fd, programMode)
	}
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	}
	if err != nil {
		p.Close()
		return nil, fmt.Errorf("load program %s: %w", path, err)
	}
	return p, nil
}

// programFD makes the memfd. Kernels before 6.3 don't know MFD_EXEC, and need none.
func programFD() (int, error) {
	const flags = unix.MFD_CLOEXEC | unix.MFD_ALLOW_SEALING
	fd, err := unix.MemfdCreate("sluiced", flags|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.MemfdCreate("sluiced", flags)
	}
	return fd, err
}

// Close frees the memory as soon as no process runs it.
func (p *Program) Close() error { return p.file.Close() }
