// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openStdio opens a new process's fds 0 to 2, for the caller to close. It shares
// none with this process, lest it move, overwrite or read what is the agent's: 0
// and 1 are /dev/null, 2 is a write-only, appending open of what stderr is. Not a
// pipe to this process: the other outlives it, and its last words matter then.
//
// A socket, as systemd's journal gives, can't be opened again and is passed as it
// is; of what is shared, its modes, the process can change none (restrictions).
func openStdio(stderr *os.File) (files [3]*os.File, err error) {
	for i, mode := range []int{os.O_RDONLY, os.O_WRONLY} {
		if files[i], err = os.OpenFile(os.DevNull, mode, 0); err != nil {
			closeStdio(files)
			return files, err
		}
	}
	if files[2], err = reopen(stderr); err != nil {
		closeStdio(files)
		return files, fmt.Errorf("stderr: %w", err)
	}
	return files, nil
}

func closeStdio(files [3]*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// reopen returns a write-only open of what f is, or a dup if that is a socket.
func reopen(f *os.File) (*os.File, error) {
	fd, err := fdOf(f)
	if err != nil {
		return nil, err
	}
	const flags = unix.O_WRONLY | unix.O_APPEND | unix.O_NOCTTY | unix.O_CLOEXEC | unix.O_NONBLOCK
	again, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), flags, 0)
	if errors.Is(err, unix.ENXIO) { // of a socket, and of a pipe that nobody reads
		again, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	} else if err == nil {
		err = unix.SetNonblock(again, false) // only the open must not wait
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(again), f.Name()), nil
}
