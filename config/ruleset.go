// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"sluice/policy/nft"
)

// ReadRuleset reads the file of a ruleset that a file of networks names, relative to
// that one's folder, and what it includes.
func ReadRuleset(config, name string) (r *Ruleset, err error) {
	r = &Ruleset{File: name}
	if !filepath.IsAbs(name) {
		if r.File, err = filepath.Abs(filepath.Join(filepath.Dir(config), name)); err != nil {
			return nil, err
		}
	}
	text, err := os.ReadFile(r.File)
	if err != nil {
		return nil, err
	}
	r.Text = string(text)
	disk := nft.Disk{Glob: filepath.Glob, Read: func(name string) (string, bool, error) {
		text, err := os.ReadFile(name)
		if info, gone := os.Stat(name); errors.Is(err, fs.ErrNotExist) || gone == nil && info.IsDir() {
			return "", false, nil
		}
		return string(text), true, err
	}}
	r.Included, err = disk.Included(r.File, r.Text)
	return r, err
}

// ruleset is that of a namespace, from the file of networks or from one of its own.
func (v *validator) ruleset(field string, r *rawNamespace, n *Namespace) {
	n.NFT = r.NFT
	if r.NFTFile == nil {
		return
	}
	if field += ".nftFile"; r.NFT != nil {
		v.fault(field, "nft says the whole ruleset already: leave one of them out")
		return
	}
	if *r.NFTFile == "" {
		v.fault(field, "want the path of a file")
		return
	}
	f, err := v.rulesets(*r.NFTFile)
	if err != nil {
		v.fault(field, "%s: %v", *r.NFTFile, err)
		return
	}
	n.NFT, n.NFTFile, n.NFTIncluded = &f.Text, f.File, f.Included
}
