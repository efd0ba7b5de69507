// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
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
// Each transaction of a namespace's ruleset has a number, 1 for the first. The last
// ones are the steps of its journal. When a listing takes their place, or the ruleset
// is gone, the journal goes to the archive: a bucket of its own, which only commits and
// questions about the history read. So a commit still costs what it changes.

// Bounds of a namespace's archive; its newest journal stays, whatever it has.
const (
	maxArchived      = 512 // transactions
	maxArchivedBytes = 16 << 20
)

// archived is a journal and the number of transactions before its first step.
type archived struct {
	Before  uint64          `json:"before"`
	Journal journal.Journal `json:"journal"`
}

func (a *archived) last() uint64 { return a.Before + uint64(len(a.Journal.Steps)) }

// archiveKey sorts by namespace and number.
func archiveKey(space string, before uint64) []byte {
	return binary.BigEndian.AppendUint64(append([]byte(space), 0), before)
}

// archiveKeys are those of a namespace, the oldest first.
func archiveKeys(tx *bbolt.Tx, space string) (keys [][]byte) {
	prefix := append([]byte(space), 0)
	c := tx.Bucket([]byte(bucketHistory)).Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	return keys
}

// archive keeps a journal, and forgets the oldest ones that are too many.
func (t *txn) archive(space string, a *archived) error {
	if len(a.Journal.Steps) == 0 {
		return nil
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if err := t.write(bucketHistory, "", archiveKey(space, a.Before), text); err != nil {
		return err
	}
	size, b := 0, t.tx.Bucket([]byte(bucketHistory))
	for i, k := range slices.Backward(archiveKeys(t.tx, space)) {
		size += len(b.Get(k))
		steps := a.last() - binary.BigEndian.Uint64(k[len(k)-8:])
		if newest := bytes.Equal(k, archiveKey(space, a.Before)); !newest && (size > maxArchivedBytes || steps > maxArchived) {
			return t.dropArchive(archiveKeys(t.tx, space)[:i+1])
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

// history are the journals of a namespace that are kept, the oldest first; the last one
// is that in force, if there is a ruleset.
func history(tx *bbolt.Tx, n *namespaceRecord) (all []archived, err error) {
	b := tx.Bucket([]byte(bucketHistory))
	for _, k := range archiveKeys(tx, n.Name) {
		var a archived
		if err := json.Unmarshal(b.Get(k), &a); err != nil {
			return nil, fmt.Errorf("history of %s: %w", n.Name, err)
		}
		all = append(all, a)
	}
	if n.NFT != nil {
		all = append(all, archived{n.NFTBefore, *n.NFT})
	}
	return all, nil
}

// committed is how many transactions there were before the namespace's journal.
func committed(tx *bbolt.Tx, n *namespaceRecord) (uint64, error) {
	keys := archiveKeys(tx, n.Name)
	switch {
	case n.NFT != nil:
		return n.NFTBefore, nil
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
	space  string
	number uint64
}

// commitRules notes a transaction in the namespace's record. A ruleset without tables is
// none.
func (t *txn) commitRules(n *namespaceRecord, from *journal.State, step *journal.Step, to *nft.Result) (*edit, error) {
	before, err := committed(t.tx, n)
	if err != nil {
		return nil, err
	}
	was := n.NFT
	if was == nil {
		was = new(journal.Journal)
	}
	step.At = t.state.now
	next, _ := was.With(from, *step, to.Ruleset)
	if len(next.Steps) <= len(was.Steps) { // a listing took the place of those before
		if err := t.archive(n.Name, &archived{before, *was}); err != nil {
			return nil, err
		}
		before += uint64(len(was.Steps))
	}
	n.NFT, n.NFTBefore, n.NFTConfirm = next, before, nil
	done := &edit{to, n.Name, before + uint64(len(next.Steps))}
	if len(to.Ruleset.Tables) == 0 {
		if err := t.archive(n.Name, &archived{before, *next}); err != nil {
			return nil, err
		}
		n.NFT, n.NFTBefore = nil, 0
	}
	n.Connections.Filtered = n.NFT != nil
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
	gone := namespaceRecord{Name: old.Name, NFT: old.NFT, NFTBefore: old.NFTBefore}
	step := &journal.Step{Text: "flush ruleset", By: by}
	res, err := step.Apply(from.Ruleset)
	if err == nil {
		_, err = t.commitRules(&gone, from, step, res)
	}
	return err
}

// forgetHistory drops that of namespaces that are no more.
func (t *txn) forgetHistory(spaces []string) error {
	var gone [][]byte
	err := t.tx.Bucket([]byte(bucketHistory)).ForEach(func(k, _ []byte) error {
		if space, _, _ := bytes.Cut(k, []byte{0}); !slices.Contains(spaces, string(space)) {
			gone = append(gone, bytes.Clone(k))
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.dropArchive(gone)
}
