// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"sluice/test/traffic/report"
)

// frames sends the frames of a file from an interface as they are, one in a line,
// in hexadecimal digits. A line "pause 100ms" waits.
func frames(ctx context.Context, args []string) (any, error) {
	f := flags("frames")
	ifname := f.String("i", "eth0", "interface")
	file := f.String("file", "", "the frames")
	pace := f.Duration("pace", 4*time.Millisecond, "time between two frames")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	in, err := os.Open(*file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	fd, err := rawSocket(*ifname, false, true)
	if err != nil {
		return nil, err
	}
	var out report.Frames
	s := bufio.NewScanner(in)
	s.Buffer(nil, 1<<20)
	for s.Scan() && ctx.Err() == nil {
		sent, err := frameLine(fd, s.Text())
		if err != nil {
			return out, err
		}
		out.Sent += sent
		time.Sleep(*pace)
	}
	return out, s.Err()
}

// frameLine does what one line says.
func frameLine(fd int, line string) (sent int, err error) {
	if long, isPause := strings.CutPrefix(line, "pause "); isPause {
		d, err := time.ParseDuration(long)
		time.Sleep(d)
		return 0, err
	}
	b, err := hex.DecodeString(line)
	if err != nil || len(b) == 0 {
		return 0, err
	}
	for {
		_, err := unix.Write(fd, b)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return 1, os.NewSyscallError("write", err)
		}
	}
}

// record prints what arrives at an interface as it comes, "frame" and its bytes
// in hexadecimal digits, until it is interrupted.
func record(ctx context.Context, args []string) (any, error) {
	f := flags("record")
	ifname := f.String("i", "eth0", "interface")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	fd, err := rawSocket(*ifname, false, true)
	if err != nil {
		return nil, err
	}
	if err := setTimeout(fd, 50); err != nil {
		return nil, err
	}
	ready()
	buf, oob := make([]byte, 72<<10), make([]byte, 128)
	for queued := maxQueued; queued > 0; {
		n, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, 0)
		if ctx.Err() != nil {
			queued-- // what has come until now, and no more
		}
		switch {
		case errors.Is(err, unix.EAGAIN) && ctx.Err() != nil:
			queued = 0
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR), errors.Is(err, unix.ENETDOWN):
		case err != nil:
			return nil, os.NewSyscallError("recvmsg", err)
		case n >= 14:
			fmt.Printf("frame %x\n", retag(buf[:n], oob[:oobn]))
		}
	}
	return report.Recording{Lost: kernelDrops(fd)}, nil
}

// maxQueued bounds the frames that are read after the end.
const maxQueued = 1000

// retag puts the tag back that the kernel tells beside the frame.
func retag(b, oob []byte) []byte {
	tag, ok := auxTag(oob)
	if !ok {
		return b
	}
	out := append(make([]byte, 0, len(b)+4), b[:12]...)
	out = binary.BigEndian.AppendUint16(out, tag.tpid)
	out = binary.BigEndian.AppendUint16(out, tag.tci)
	return append(out, b[12:]...)
}
