// SPDX-License-Identifier: Apache-2.0

package nft

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Disk is where files are that somebody reads for who parses a text elsewhere.
type Disk struct {
	// Glob are the names that a pattern matches, Read is what is in a file, and false if
	// there is none.
	Glob func(pattern string) ([]string, error)
	Read func(name string) (text string, there bool, err error)
}

// Included are the files that a text of that name includes, and those that they
// include, by path: with them, Parse needs no disk. What isn't there is left out, for
// Parse to say so with its place.
func (d *Disk) Included(file, text string) (map[string]string, error) {
	all := make(map[string]string)
	if err := d.include(all, file, text, 0); err != nil || len(all) == 0 {
		return nil, err
	}
	return all, nil
}

func (d *Disk) include(all map[string]string, from, text string, depth int) error {
	if depth > maxIncludes {
		return fmt.Errorf("%s: files include each other too deeply", from)
	}
	for _, m := range regexp.MustCompile(`(?m)^\s*include\s+"([^"\n]+)"`).FindAllStringSubmatch(text, -1) {
		pattern := m[1]
		if strings.HasPrefix(pattern, "./") {
			pattern = path.Join(path.Dir(from), pattern)
		}
		found, err := d.Glob(pattern)
		if err != nil {
			return fmt.Errorf("%s: include %q: %w", from, m[1], err)
		}
		slices.Sort(found)
		for _, name := range found {
			if err := d.takeIn(all, name, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// takeIn is include for a file.
func (d *Disk) takeIn(all map[string]string, name string, depth int) error {
	if _, seen := all[name]; seen {
		return nil
	}
	text, there, err := d.Read(name)
	if err != nil || !there {
		return err
	}
	all[name] = text
	return d.include(all, name, text, depth+1)
}
