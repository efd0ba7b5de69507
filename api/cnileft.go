// SPDX-License-Identifier: Apache-2.0

package api

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// CNILeftDir is the folder, in the daemon's state directory, of what plugins left for a
// daemon that was not there.
const CNILeftDir = "cni-left"

// maxLeft bounds a file there, in bytes.
const maxLeft = 64 << 10

// CNILeftDel is a DEL that the daemon has to do when it starts.
type CNILeftDel struct {
	CNIKey
	// Came is when the DEL came. What was made since then is not meant.
	Came Moment `json:"came"`
}

// LeaveCNIDel writes a DEL down in the state directory: when it returns without an
// error, it outlives a loss of power. The same DEL twice is one file.
func LeaveCNIDel(stateDir string, d CNILeftDel) (err error) {
	dir := filepath.Join(stateDir, CNILeftDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close())
	if err != nil {
		return err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %q", d.Config, d.Container, d.IfName))
	if err = os.Rename(f.Name(), filepath.Join(dir, fmt.Sprintf("del-%x", sum[:16]))); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a new name in a folder outlive a loss of power.
func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// CNILeftDels reads what was left, with the path of each, which its reader removes when
// it is done. What can't be read is an error beside the others.
func CNILeftDels(stateDir string) (map[string]CNILeftDel, error) {
	dir := filepath.Join(stateDir, CNILeftDir)
	names, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	out := make(map[string]CNILeftDel)
	faults := []error{err}
	for _, n := range names {
		if !strings.HasPrefix(n.Name(), "del-") {
			continue
		}
		path := filepath.Join(dir, n.Name())
		d, err := readLeft(path)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", path, err))
			continue
		}
		out[path] = d
	}
	return out, errors.Join(faults...)
}

func readLeft(path string) (d CNILeftDel, err error) {
	info, err := os.Lstat(path)
	if err != nil {
		return d, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxLeft {
		return d, errors.New("not a file of ours")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(text, &d)
}
