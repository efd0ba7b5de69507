// SPDX-License-Identifier: Apache-2.0

// Package journal keeps a ruleset as text: how it was at one moment, and the
// transactions since. Who has read it up to some transaction goes on with the next, so
// that a change costs what it changes, and what rules have counted stays; who begins
// reads all of it, and comes to the same ruleset with the same handles.
//
// It is inert: the state file has it, and it travels to the dataplane as JSON.
package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing/fstest"
	"time"

	"sluice/policy/nft"
)

// Bounds: of the transactions that are kept, before a listing takes their place.
const (
	maxSteps    = 64
	minStepText = 64 << 10
)

// Journal is a ruleset in writing. The zero Journal is an empty ruleset. It is not
// changed once somebody else has it.
type Journal struct {
	// Serial is how many transactions Base has behind it, Sum what they were.
	Serial uint64 `json:"serial"`
	Sum    string `json:"sum,omitempty"`
	// Base is the listing, Handles are its numbers (nft.Ruleset.HandleList).
	Base    string   `json:"base,omitempty"`
	Handles []uint64 `json:"handles,omitempty"`
	Steps   []Step   `json:"steps,omitempty"`
}

// Step is one transaction, with all that its meaning depended on.
type Step struct {
	// File is the name by which places in Text are told.
	File string `json:"file,omitempty"`
	Text string `json:"text"`
	JSON bool   `json:"json,omitempty"`
	// Included are the files that it includes, by path.
	Included map[string]string `json:"included,omitempty"`
	// Devices are the numbers of those that it names.
	Devices map[string]uint32 `json:"devices,omitempty"`
	// Live are elements that it deletes, and that only packets had added: family, table,
	// set and key in hexadecimal, with a space between each two.
	Live []string `json:"live,omitempty"`
	// Anew says that the ruleset is emptied first.
	Anew bool `json:"anew,omitempty"`

	// At is when it was made, By how: for who reads the history.
	At time.Time `json:"at,omitzero"`
	By string    `json:"by,omitempty"`
}

// State is a ruleset that was read up to some transaction.
type State struct {
	Ruleset *nft.Ruleset
	Serial  uint64
	Sum     string
}

// Empty is the state that nothing has happened to.
func Empty() *State { return &State{Ruleset: &nft.Ruleset{}} }

// Last is the number of the last transaction, and the sum of all.
func (j *Journal) Last() (serial uint64, sum string) {
	serial, sum = j.Serial, j.Sum
	for i := range j.Steps {
		serial, sum = serial+1, j.Steps[i].sum(sum)
	}
	return serial, sum
}

// sum is that of all transactions up to this one.
func (s *Step) sum(before string) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %v %q %v %q", before, s.File, s.Text, s.JSON, s.Included, s.Devices, s.Live)
	if s.Anew {
		fmt.Fprint(h, " anew")
	}
	return hex.EncodeToString(h.Sum(nil)[:12])
}

// Follow goes on from a state, or from the beginning if the state is nil or isn't one
// of this journal. With changes it went on: they are those of all transactions since.
func (j *Journal) Follow(from *State) (to *State, changes []nft.Change, err error) {
	at, sum := j.Serial, j.Sum
	for i := 0; from != nil; i++ {
		if at == from.Serial && sum == from.Sum {
			return follow(from, j.Steps[i:])
		}
		if i == len(j.Steps) {
			break
		}
		at, sum = at+1, j.Steps[i].sum(sum)
	}
	if from, err = j.load(); err != nil {
		return nil, nil, err
	}
	to, _, err = follow(from, j.Steps)
	return to, nil, err
}

func follow(from *State, steps []Step) (*State, []nft.Change, error) {
	var changes []nft.Change
	for i := range steps {
		res, err := steps[i].Apply(from.Ruleset)
		if err != nil {
			return nil, nil, err
		}
		from = &State{res.Ruleset, from.Serial + 1, steps[i].sum(from.Sum)}
		changes = append(changes, res.Changes...)
	}
	return from, changes, nil
}

// load reads the listing.
func (j *Journal) load() (*State, error) {
	if j.Base == "" && len(j.Handles) == 0 {
		return &State{&nft.Ruleset{}, j.Serial, j.Sum}, nil
	}
	cmds, err := nft.Parse("", j.Base, nil)
	if err != nil {
		return nil, fmt.Errorf("listing of the ruleset: %w", err)
	}
	res, err := new(nft.Ruleset).Apply(cmds, nil)
	if err != nil {
		return nil, fmt.Errorf("listing of the ruleset: %w", err)
	}
	if err := res.Ruleset.Renumber(j.Handles); err != nil {
		return nil, err
	}
	return &State{res.Ruleset, j.Serial, j.Sum}, nil
}

// Parse reads the transaction's commands.
func (s *Step) Parse() ([]*nft.Command, error) {
	cmds, err := s.parse()
	if err != nil || !s.Anew {
		return cmds, err
	}
	flush, err := nft.Parse("", "flush ruleset", nil)
	return append(flush, cmds...), err
}

func (s *Step) parse() ([]*nft.Command, error) {
	if s.JSON {
		return nft.ParseJSON([]byte(s.Text))
	}
	o := &nft.Options{}
	if len(s.Included) > 0 {
		o.FS, o.Dirs = s.files(), []string{"."}
	}
	return nft.Parse(s.File, s.Text, o)
}

// files are those that it includes.
func (s *Step) files() fs.FS {
	all := make(fstest.MapFS, len(s.Included))
	for name, text := range s.Included {
		all[strings.TrimPrefix(name, "/")] = &fstest.MapFile{Data: []byte(text)}
	}
	return all
}

// Apply makes the next ruleset.
func (s *Step) Apply(r *nft.Ruleset) (*nft.Result, error) {
	cmds, err := s.Parse()
	if err != nil {
		return nil, err
	}
	return r.Apply(cmds, &nft.Env{
		IfIndex: func(name string) (uint32, bool) { n, ok := s.Devices[name]; return n, ok },
		Live: func(t *nft.Table, set *nft.Set, key string) bool {
			return slices.Contains(s.Live, live(t, set, key))
		},
	})
}

func live(t *nft.Table, set *nft.Set, key string) string {
	return fmt.Sprintf("%v %s %s %x", t.Family, t.Name, set.Name, key)
}

// World is what a transaction may ask when it is made; functions may be nil.
type World struct {
	Device func(name string) (uint32, bool)
	Live   func(t *nft.Table, set *nft.Set, key string) bool
}

// Try does a transaction, and notes in it what it asked. It is not in the journal yet.
func (s *Step) Try(r *nft.Ruleset, w World) (*nft.Result, error) {
	cmds, err := s.Parse()
	if err != nil {
		return nil, err
	}
	s.Devices, s.Live = nil, nil
	return r.Apply(cmds, &nft.Env{
		IfIndex: func(name string) (uint32, bool) {
			if w.Device == nil {
				return 0, false
			}
			n, ok := w.Device(name)
			if ok {
				if s.Devices == nil {
					s.Devices = make(map[string]uint32)
				}
				s.Devices[name] = n
			}
			return n, ok
		},
		Live: func(t *nft.Table, set *nft.Set, key string) bool {
			if w.Live == nil || !w.Live(t, set, key) {
				return false
			}
			s.Live = append(s.Live, live(t, set, key))
			return true
		},
	})
}

// At is the ruleset after the first n of the steps.
func (j *Journal) At(n int) (*nft.Ruleset, error) {
	first := *j
	first.Steps = j.Steps[:n]
	s, _, err := first.Follow(nil)
	if err != nil {
		return nil, err
	}
	return s.Ruleset, nil
}

// With is the journal, at a state, with one transaction more, which came to that
// ruleset. Of many transactions the listing is kept instead; who has followed up to the
// state goes on with the last nevertheless.
func (j *Journal) With(from *State, s Step, to *nft.Ruleset) (*Journal, *State) {
	next := &Journal{Serial: j.Serial, Sum: j.Sum, Base: j.Base, Handles: j.Handles, Steps: append(slices.Clip(j.Steps), s)}
	size := 0
	for i := range next.Steps {
		size += len(next.Steps[i].Text)
	}
	if len(j.Steps) > 0 && (len(next.Steps) > maxSteps || size > max(minStepText, 2*len(next.Base))) {
		var b strings.Builder
		_ = from.Ruleset.List(&b, nil) // a Builder takes everything
		next = &Journal{Serial: from.Serial, Sum: from.Sum, Base: b.String(), Handles: from.Ruleset.HandleList(), Steps: []Step{s}}
	}
	return next, &State{to, from.Serial + 1, s.sum(from.Sum)}
}
