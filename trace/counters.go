// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Theory of operation.
//
// The counters of all ports are one file on tmpfs. The agent creates it and
// hands it to the dataplane; both map it shared, the dataplane adds and the
// agent reads. There is no pointer in it and nothing to lock, so that either
// process may die at any moment and the numbers stay what they were:
//
//	0            1024                2048
//	+------------+-------------------+-------------------+--
//	| header     | slot 0 (nobody)   | slot 1 (port 1)   | …
//	+------------+-------------------+-------------------+--
//	 magic    8 bytes
//	 version  4 bytes, native endian like all that follows
//	 slotsize 4 bytes
//	 slots    4 bytes
//	 zero     to byte 1024
//
// A file is written under another name, header and all, and then renamed: a
// process killed in between leaves a name that nobody opens and that the next
// one overwrites. A file that is nevertheless not whole (wrong size, wrong
// magic) or of another layout is replaced; the numbers start at zero then.

const (
	countersMagic   = "SLUICECT"
	countersVersion = 1
	slotSize        = slotWords * 8
	headerSize      = slotSize // so that slots start on their own cache line
	newSuffix       = ".new"

	// MaxSlots is the number of slots that port numbers of 16 bits can name.
	MaxSlots = 1 << 16
)

// ErrLayout says that a file is no counter file of this version: cut short, of
// another layout, or not ours at all.
var ErrLayout = errors.New("not a counter file of this layout")

// Counters is the table of all ports' counters. It is safe for any number of
// goroutines; only Close must come after all other use.
type Counters struct {
	ports []PortCounters
	mem   []byte // the mapping that ports lies in; nil: Go memory
}

// NewCounters makes a table in private memory: for tests, and for a dataplane
// without an agent. Slots is as in CreateCounters.
func NewCounters(slots int) *Counters {
	return &Counters{ports: make([]PortCounters, min(max(slots, 1), MaxSlots))}
}

// CreateCounters opens the counter file at path, or makes it. A file with the
// same number of slots and the same layout is kept with its numbers, any other
// is replaced. Slots is 1 to MaxSlots and includes slot 0, which belongs to
// nobody. The memory (1024 bytes a slot) is taken at once: a full tmpfs is an
// error here and not a SIGBUS in the data path. The caller closes the file.
func CreateCounters(path string, slots int) (*os.File, error) {
	if slots < 1 || slots > MaxSlots {
		return nil, fmt.Errorf("counters %s: %d slots, want 1 to %d", path, slots, MaxSlots)
	}
	f, err := openCounters(path, slots)
	if err == nil || !replaceable(err) {
		return f, err
	}
	return writeCounters(path, slots)
}

// replaceable reports whether an open failed because there is no usable file.
func replaceable(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrLayout)
}

// openCounters opens a file that has exactly the layout wanted. A symbolic link
// is refused: the directory is ours, so it was not put there by us.
func openCounters(path string, slots int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open counters: %w", err)
	}
	n, err := readHeader(f)
	if err == nil && n != slots {
		err = fmt.Errorf("counters %s: %d slots, want %d: %w", path, n, slots, ErrLayout)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// writeCounters makes a whole file under another name and renames it to path.
func writeCounters(path string, slots int) (_ *os.File, err error) {
	flags := os.O_RDWR | os.O_CREATE | os.O_TRUNC | unix.O_NOFOLLOW
	f, err := os.OpenFile(path+newSuffix, flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create counters: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(path + newSuffix)
		}
	}()
	if err = unix.Fallocate(int(f.Fd()), 0, 0, fileSize(slots)); err != nil {
		return nil, fmt.Errorf("allocate counters %s: %w", path, err)
	}
	if _, err = f.WriteAt(encodeHeader(slots), 0); err != nil {
		return nil, fmt.Errorf("write counters: %w", err)
	}
	if err = os.Rename(path+newSuffix, path); err != nil {
		return nil, fmt.Errorf("name counters: %w", err)
	}
	return f, nil
}

func fileSize(slots int) int64 { return headerSize + int64(slots)*slotSize }

func encodeHeader(slots int) []byte {
	b := make([]byte, headerSize)
	copy(b, countersMagic)
	binary.NativeEndian.PutUint32(b[8:], countersVersion)
	binary.NativeEndian.PutUint32(b[12:], slotSize)
	binary.NativeEndian.PutUint32(b[16:], uint32(slots))
	return b
}

// readHeader checks that the file is whole and returns its number of slots. Any
// doubt is ErrLayout.
func readHeader(f *os.File) (slots int, err error) {
	var b [headerSize]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("read counters: %w", err)
	}
	slots, ok := decodeHeader(b[:])
	if !ok {
		return 0, fmt.Errorf("counters %s: %w", f.Name(), ErrLayout)
	}
	st, err := f.Stat()
	if err != nil {
		return 0, fmt.Errorf("stat counters: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() != fileSize(slots) {
		return 0, fmt.Errorf("counters %s: %d bytes: %w", f.Name(), st.Size(), ErrLayout)
	}
	return slots, nil
}

// decodeHeader reads the number of slots from a header of this layout. It
// accepts any bytes.
func decodeHeader(b []byte) (slots int, ok bool) {
	if len(b) < headerSize || string(b[:8]) != countersMagic ||
		binary.NativeEndian.Uint32(b[8:]) != countersVersion ||
		binary.NativeEndian.Uint32(b[12:]) != slotSize {
		return 0, false
	}
	n := binary.NativeEndian.Uint32(b[16:])
	return int(n), n >= 1 && n <= MaxSlots
}

// MapCounters maps a file that CreateCounters returned, in this process or in
// the one that passed it. It does not keep f, which the caller may close.
// Nobody may shorten the file afterwards: access beyond the end kills the
// process, which is why the sandbox of the dataplane forbids ftruncate(2).
func MapCounters(f *os.File) (*Counters, error) {
	slots, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(int(f.Fd()), 0, int(fileSize(slots)),
		unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map counters %s: %w", f.Name(), err)
	}
	return &Counters{ports: slotsOf(mem, slots), mem: mem}, nil
}

// Close unmaps the table; the file and its numbers stay. Every PortCounters of
// it is invalid afterwards. Close may be called again.
func (c *Counters) Close() error {
	mem := c.mem
	c.ports, c.mem = make([]PortCounters, 1), nil
	if mem == nil {
		return nil
	}
	if err := unix.Munmap(mem); err != nil {
		return fmt.Errorf("unmap counters: %w", err)
	}
	return nil
}

// Slots is the number of slots, slot 0 included.
func (c *Counters) Slots() int { return len(c.ports) }

// Port returns the counters of port i, never nil. Slot 0 belongs to nobody; it
// also stands in for a port that the table is too small for.
func (c *Counters) Port(i uint16) *PortCounters {
	if int(i) >= len(c.ports) {
		i = 0
	}
	return &c.ports[i]
}
