// SPDX-License-Identifier: Apache-2.0

package conntrack

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// The file: a header of one page, and the records.
//
//	 0 magic    8 bytes
//	 8 version  4 bytes, native endian like all that follows
//	12 record   4 bytes: recordSize
//	16 entries  4 bytes
//	24 secret   16 bytes: of the hash
//	   zero     to byte 4096
const (
	magic      = "SLUICENF"
	version    = 1
	headerSize = 4096
	secretAt   = 24
	newSuffix  = ".new"
)

// ErrLayout says that a file is no table of this version: cut short, of another
// layout, or not ours at all.
var ErrLayout = errors.New("not a connection table of this layout")

func fileSize(entries int) int64 { return headerSize + int64(entries)*recordSize }

func checkEntries(n int) error {
	if n < 1 || n > MaxEntries {
		return fmt.Errorf("conntrack: %d entries, want 1 to %d", n, MaxEntries)
	}
	return nil
}

func mapError(err error) error { return fmt.Errorf("map connection table: %w", err) }

func newSecret() (k hashKey, err error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return k, fmt.Errorf("conntrack: %w", err)
	}
	return secretOf(b[:]), nil
}

func secretOf(b []byte) hashKey {
	return hashKey{binary.NativeEndian.Uint64(b), binary.NativeEndian.Uint64(b[8:])}
}

// CreateFile opens the table at path, or makes it, for as many entries as wanted.
// A file of the same layout and size is kept with its connections, any other is
// replaced. The memory (256 bytes for each entry) is taken at once: a full tmpfs
// is an error here and not a SIGBUS in the data path. The file is passed to Open,
// in this process or another, and closed by the caller.
func CreateFile(path string, entries int) (*os.File, error) {
	if err := checkEntries(entries); err != nil {
		return nil, err
	}
	f, err := openFile(path, entries)
	if err == nil || !errors.Is(err, os.ErrNotExist) && !errors.Is(err, ErrLayout) {
		return f, err
	}
	return writeFile(path, entries)
}

// openFile opens a file that has exactly the layout wanted.
func openFile(path string, entries int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open connection table: %w", err)
	}
	h, err := readHeader(f)
	if err == nil && h.entries != entries {
		err = fmt.Errorf("%s: %d entries, want %d: %w", path, h.entries, entries, ErrLayout)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// writeFile makes a whole file under another name and renames it to path.
func writeFile(path string, entries int) (_ *os.File, err error) {
	f, err := os.OpenFile(path+newSuffix, os.O_RDWR|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create connection table: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(path + newSuffix)
		}
	}()
	if err = unix.Fallocate(int(f.Fd()), 0, 0, fileSize(entries)); err != nil {
		return nil, fmt.Errorf("allocate connection table %s: %w", path, err)
	}
	if err = writeHeader(f, entries); err != nil {
		return nil, err
	}
	if err = os.Rename(path+newSuffix, path); err != nil {
		return nil, fmt.Errorf("name connection table: %w", err)
	}
	return f, nil
}

func writeHeader(f *os.File, entries int) error {
	b := make([]byte, headerSize)
	copy(b, magic)
	binary.NativeEndian.PutUint32(b[8:], version)
	binary.NativeEndian.PutUint32(b[12:], recordSize)
	binary.NativeEndian.PutUint32(b[16:], uint32(entries))
	if _, err := rand.Read(b[secretAt : secretAt+16]); err != nil {
		return fmt.Errorf("conntrack: %w", err)
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return fmt.Errorf("write connection table: %w", err)
	}
	return nil
}

type header struct {
	entries int
	secret  hashKey
}

// decodeHeader accepts any bytes.
func decodeHeader(b []byte) (h header, ok bool) {
	if len(b) < headerSize || string(b[:8]) != magic ||
		binary.NativeEndian.Uint32(b[8:]) != version || binary.NativeEndian.Uint32(b[12:]) != recordSize {
		return h, false
	}
	n := binary.NativeEndian.Uint32(b[16:])
	h = header{int(n), secretOf(b[secretAt:])}
	return h, n >= 1 && n <= MaxEntries
}

// readHeader checks that the file is whole. Any doubt is ErrLayout.
func readHeader(f *os.File) (header, error) {
	var b [headerSize]byte
	if _, err := f.ReadAt(b[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return header{}, fmt.Errorf("read connection table: %w", err)
	}
	h, ok := decodeHeader(b[:])
	if !ok {
		return h, fmt.Errorf("%s: %w", f.Name(), ErrLayout)
	}
	st, err := f.Stat()
	if err != nil {
		return h, fmt.Errorf("stat connection table: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() != fileSize(h.entries) {
		return h, fmt.Errorf("%s: %d bytes: %w", f.Name(), st.Size(), ErrLayout)
	}
	return h, nil
}

// Open maps a file that CreateFile made, and goes on with the connections that
// are in it: those of a process before, however that ended. It must have ended:
// two processes can't use one file. now is in the seconds of the same clock. It
// does not keep f, which nobody may shorten afterwards.
func Open(f *os.File, cfg Config, now uint32) (*Table, Report, error) {
	m, err := Map(f, cfg)
	if err != nil {
		return nil, Report{}, err
	}
	t, rep := m.Open(now)
	return t, rep, nil
}

// touch has the kernel find all the memory that the table may need: the first use of
// a page costs more than all others.
func (t *Table) touch() {
	_ = unix.Madvise(t.index, unix.MADV_POPULATE_WRITE) // since Linux 5.14
	t.mu.Lock()
	defer t.mu.Unlock()
	const step = 1024 // words of a page
	for _, words := range [][]uint32{t.wheel.prev[:len(t.recs)], t.wheel.next[:len(t.recs)], t.young.prev, t.young.next} {
		for i := 0; i < len(words); i += step {
			words[i] = 0
		}
	}
	for i := 0; i < len(t.moved); i += step {
		t.moved[i].Store(0)
	}
}
