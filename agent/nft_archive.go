// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"sluice/policy/journal"
	"sluice/policy/nft"
)

// Theory of operation.
//
// Each transaction of a ruleset has a number, 1 for the first. The last
// ones are the steps of its journal. When a listing takes their place, or the ruleset
// is gone, the journal goes to the archive: a bucket of its own, which only commits and
// questions about the history read. So a commit still costs what it changes.

// Bounds of a ruleset's archive; its newest journal stays, whatever it has.
const (
	maxArchived      = 512 // transactions
	maxArchivedBytes = 16 << 20
)

// archived is a journal, the number of transactions before it, and how many of its first
// steps are none: a port had them from its network.
type archived struct {
	Before  uint64          `json:"before"`
	Given   int             `json:"given,omitempty"`
	Journal journal.Journal `json:"journal"`
}

// steps are those that are transactions.
func (a *archived) steps() []journal.Step { return a.Journal.Steps[a.Given:] }

func (a *archived) last() uint64 { return a.Before + uint64(len(a.steps())) }

// archiveKey sorts by ruleset and number.
func archiveKey(ruleset string, before uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(ruleset), 0), before)
}

// archiveKeys are those of a ruleset, the oldest first.
func archiveKeys(tx *bbolt.Tx, ruleset string) (keys [][]byte) {
	prefix := append([]byte(ruleset), 0)
	c := tx.Bucket([]byte(bucketHistory)).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	return keys
}

// archive keeps a journal, and forgets the oldest ones that are too many.
func (t *txn) archive(ruleset string, a *archived) error {
	if len(a.steps()) == 0 {
		return nil
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := t.write(bucketHistory, "", archiveKey(ruleset, a.Before), text); err != nil {
		return err
	}
	size, b := 0, t.tx.Bucket([]byte(bucketHistory))
	for i, k := range slices.Backward(archiveKeys(t.tx, ruleset)) {
		size += len(b.Get(k))
		steps := a.last() - binary.BigEndian.Uint64(k[len(k)-8:])
		if newest := bytes.Equal(k, archiveKey(ruleset, a.Before)); !newest && (size > maxArchivedBytes || steps > maxArchived) {
			return t.dropArchive(archiveKeys(t.tx, ruleset)[:i+1])
		}
	}
	return nil
}

func (t *txn) dropArchive(keys [][]byte) error {
	for _, k := range keys {
		if err := t.write(bucketHistory, "", k, nil); err != nil {
			return err
		}
	}
	return nil
}

// moveArchive gives the archive of a ruleset to another one, which has none.
func (t *txn) moveArchive(from, to string) error {
	b := t.tx.Bucket([]byte(bucketHistory))
	for _, k := range archiveKeys(t.tx, from) {
		if err := t.write(bucketHistory, "", append([]byte(to), k[len(from):]...), bytes.Clone(b.Get(k))); err != nil {
			return err
		}
		if err := t.write(bucketHistory, "", k, nil); err != nil {
			return err
		}
	}
	return nil
}

// history are the journals of a ruleset that are kept, the oldest first; the last one is
// that in force, if there is one.
func history(tx *bbolt.Tx, x *ruled) (all []archived, err error) {
	b := tx.Bucket([]byte(bucketHistory))
	for _, k := range archiveKeys(tx, x.key) {
		var a archived
		if err := json.Unmarshal(b.Get(k), &a); err != nil {
			return nil, fmt.Errorf("history of %s: %w", x.key, err)
		}
		all = append(all, a)
	}
	if x.NFT != nil {
		all = append(all, archived{x.NFTBefore, x.NFTGiven, *x.NFT})
	}
	return all, nil
}

// committed is how many transactions there were before the journal of a ruleset.
func committed(tx *bbolt.Tx, x *ruled) (uint64, error) {
	keys := archiveKeys(tx, x.key)
	switch {
	case x.NFT != nil:
		return x.NFTBefore, nil
	case len(keys) == 0:
		return 0, nil
	}
	var a archived
	err := json.Unmarshal(tx.Bucket([]byte(bucketHistory)).Get(keys[len(keys)-1]), &a)
	return a.last(), err
}

// edit is a transaction that was done to a record.
type edit struct {
	*nft.Result
	space   string
	port    string // the name of it; empty: of the namespace, or of a network's ports
	ruleset string // its key
	number  uint64 // 0: of the ruleset of a network's ports, which has no history
}

// commitRules notes a transaction in a record. A ruleset without tables is none; then a
// port has its network's.
func (t *txn) commitRules(x *ruled, from *journal.State, step *journal.Step, to *nft.Result) (*edit, error) {
	before, err := committed(t.tx, x)
	if err != nil {
		return nil, err
	}
	was := archived{before, x.NFTGiven, *cmp.Or(x.NFT, x.given, new(journal.Journal))}
	if x.NFT == nil && x.given != nil {
		was.Given = len(x.given.Steps)
	}
	step.At = t.state.now
	next, _ := was.Journal.With(from, *step, to.Ruleset)
	now := archived{was.Before, was.Given, *next}
	if len(next.Steps) <= len(was.Journal.Steps) { // a listing took the place of those before
		if err := t.archive(x.key, &was); err != nil {
			return nil, err
		}
		now.Before, now.Given = was.last(), 0
	}
	*x.rulesRecord = rulesRecord{NFT: next, NFTBefore: now.Before, NFTGiven: now.Given}
	done := &edit{to, x.space, x.name(), x.key, now.last()}
	if len(to.Ruleset.Tables) == 0 {
		if err := t.archive(x.key, &now); err != nil {
			return nil, err
		}
		*x.rulesRecord = rulesRecord{}
		if done.Result, err = x.back(to); err != nil {
			return nil, err
		}
	}
	t.edits = append(t.edits, done)
	return done, nil
}

// endRules notes that the namespace has no ruleset any more.
func (t *txn) endRules(old *namespaceRecord, by string) error {
	if old.NFT == nil {
		return nil
	}
	from, _, err := old.NFT.Follow(nil)
	if err != nil {
		return err
	}
	gone := namespaceRecord{Name: old.Name, rulesRecord: old.rulesRecord}
	step := &journal.Step{Text: "flush ruleset", By: by}
	res, err := step.Apply(from.Ruleset)
	if err == nil {
		_, err = t.commitRules(gone.ruled(), from, step, res)
	}
	return err
}

// forgetHistory drops that of namespaces that are no more. That of a port goes with its
// attachment.
func (t *txn) forgetHistory(spaces []string) error {
	var gone [][]byte
	err := t.tx.Bucket([]byte(bucketHistory)).ForEach(func(k, _ []byte) error {
		if of, _, _ := bytes.Cut(k, []byte{0}); !isPortKey(string(of)) && !slices.Contains(spaces, string(of)) {
			gone = append(gone, bytes.Clone(k))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.dropArchive(gone)
}
