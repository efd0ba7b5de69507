// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
)

// BuildID names this program's build: the same bytes have the same name. It is
// the content part of the id that the Go linker writes into each program.
// "unknown" if there is none. Two unknown builds are not the same one.
func BuildID() string {
	id, err := readBuildID(self)
	if err != nil {
		return "unknown"
	}
	return id
}

func readBuildID(path string) (string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	s := f.Section(".note.go.buildid")
	if s == nil {
		return "", errors.New("no Go build id")
	}
	note, err := s.Data()
	if err != nil {
		return "", err
	}
	return noteID(note, f.ByteOrder)
}

// noteID reads an ELF note (elf(5)): lengths of name and description, type, the
// name "Go\0\0", the description. That is "action/…/content".
func noteID(note []byte, order binary.ByteOrder) (string, error) {
	const head = 16
	if len(note) < head || string(note[12:head]) != "Go\x00\x00" {
		return "", errors.New("not a Go build id")
	}
	n := order.Uint32(note[4:])
	if uint64(n) > uint64(len(note)-head) || n == 0 {
		return "", errors.New("build id is cut off")
	}
	id := note[head : head+n]
	return string(id[bytes.LastIndexByte(id, '/')+1:]), nil
}
