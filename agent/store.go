// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"sluice/uplink"
)

// schemaVersion is the layout of the buckets and of the JSON in them. A field
// that is added does not change it; a file of another version is refused.
const schemaVersion = "1"

// Buckets: meta has the keys "version", "seed" and
// "node", a record like those; namespaces, networks and
// attachments map a name or an identifier to a record in JSON. routes has a bucket
// for each namespace, see routestore.go; history has journals, see nft_archive.go.
const (
	bucketMeta        = "meta"
	bucketNamespaces  = "namespaces"
	bucketNetworks    = "networks"
	bucketAttachments = "attachments"
	bucketRoutes      = "routes"
	bucketHistory     = "history"
)

// storeWait is how long to wait for the lock on the state file, which another
// agent with another run directory may hold.
const storeWait = time.Second

// store is the state file. Safe for concurrent use: one writer, any readers.
type store struct {
	db     *bbolt.DB
	routes routeCache
	cache  recordCache
}

// openStore opens the state file or makes it. A transaction that a kill
// interrupted never happened.
func openStore(path string) (*store, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: storeWait})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("%w: %s", ErrLocked, path)
	}
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	if err := db.Update(prepareBuckets); err != nil {
		db.Close()
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	return &store{db: db}, nil
}

func prepareBuckets(tx *bbolt.Tx) error {
	for _, name := range []string{bucketMeta, bucketNamespaces, bucketNetworks, bucketAttachments, bucketRoutes, bucketHistory} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
	if meta.Get([]byte("seed")) == nil {
		var seed [8]byte
		rand.Read(seed[:])
		if err := meta.Put([]byte("seed"), seed[:]); err != nil {
			return err
		}
	}
	switch v := string(meta.Get([]byte("version"))); v {
	case schemaVersion:
		return nil
	case "":
		return meta.Put([]byte("version"), []byte(schemaVersion))
	default:
		return fmt.Errorf("has layout version %q, this program knows %q", v, schemaVersion)
	}
}

func (s *store) Close() error { return s.db.Close() }

// read returns the last committed state.
func (s *store) read() (*state, error) {
	var st *state
	err := s.db.View(func(tx *bbolt.Tx) (err error) {
		st, err = s.readState(tx)
		return err
	})
	return st, err
}

// update runs fn in one transaction: committed and on disk if it returns nil, as
// if it had not run otherwise.
func (s *store) update(fn func(*txn) error) error {
	_, err := s.attempt(fn)
	return err
}

// attempt is update, and returns what takes the transaction back. That holds as
// long as no other one was made.
func (s *store) attempt(fn func(*txn) error) (undo func() error, err error) {
	var t *txn
	err = s.db.Update(func(tx *bbolt.Tx) error {
		st, err := s.readState(tx)
		if err != nil {
			return err
		}
		t = &txn{tx: tx, state: st}
		return fn(t)
	})
	if err != nil {
		return nil, err
	}
	s.routes.prime(t.primed)
	return func() error {
		return s.update(func(again *txn) error { return again.revert(t.undo) })
	}, nil
}

// txn is one writing transaction: the state that it began with, and the ways to
// change it.
type txn struct {
	tx    *bbolt.Tx
	state *state
	// undo is what was there before each write, in the order of the writes.
	undo []written
	// primed are the routes of namespaces as they are when the transaction is
	// committed, for the cache.
	primed map[string]*routeList
	// edits are the transactions of rulesets.
	edits []*edit
	// host is what uplinks could collide with; nil if there are none.
	host *uplink.Survey
	// hold holds the ports of the host that a state publishes; nil: nothing is held.
	hold func(*state) error
}

// written is a key and its value before a write; nil if it was not there. inner is
// the namespace in the bucket of routes.
type written struct {
	bucket, inner string
	key, was      []byte
}

// revert writes the old values, the last first.
func (t *txn) revert(undo []written) error {
	for _, w := range slices.Backward(undo) {
		if err := t.write(w.bucket, w.inner, w.key, w.was); err != nil {
			return err
		}
	}
	return nil
}

// write puts a value, or deletes the key if it is nil.
func (t *txn) write(bucket, inner string, key, value []byte) error {
	b := t.tx.Bucket([]byte(bucket))
	if inner != "" {
		var err error
		if b, err = b.CreateBucketIfNotExists([]byte(inner)); err != nil {
			return err
		}
		// What is cached of the routes is known by the last transaction that wrote any.
		if err := b.SetSequence(uint64(t.tx.ID())); err != nil {
			return err
		}
	}
	t.undo = append(t.undo, written{bucket, inner, key, slices.Clone(b.Get(key))})
	if value == nil {
		return b.Delete(key)
	}
	return b.Put(key, value)
}

func (t *txn) putNamespace(n *namespaceRecord) error { return t.put(bucketNamespaces, n.Name, n) }

func (t *txn) dropNamespace(name string) error {
	return t.write(bucketNamespaces, "", []byte(name), nil)
}

func (t *txn) putNetwork(n *networkRecord) error { return t.put(bucketNetworks, n.Name, n) }

func (t *txn) dropNetwork(name string) error { return t.write(bucketNetworks, "", []byte(name), nil) }

func (t *txn) putAttachment(a *attachmentRecord) error { return t.put(bucketAttachments, a.ID, a) }

// dropAttachment forgets one, and the history of its ruleset.
func (t *txn) dropAttachment(id string) error {
	if err := t.dropArchive(archiveKeys(t.tx, portKey(id))); err != nil {
		return err
	}
	return t.write(bucketAttachments, "", []byte(id), nil)
}

func (t *txn) putNode(n *nodeRecord) error { return t.put(bucketMeta, "node", n) }

func (t *txn) put(bucket, key string, record any) error {
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return t.write(bucket, "", []byte(key), text)
}

func (s *store) readState(tx *bbolt.Tx) (*state, error) {
	st := &state{generation: uint64(tx.ID()), now: time.Now()}
	if seed := tx.Bucket([]byte(bucketMeta)).Get([]byte("seed")); len(seed) == 8 {
		st.seed = binary.BigEndian.Uint64(seed)
	}
	if text := tx.Bucket([]byte(bucketMeta)).Get([]byte("node")); text != nil {
		if err := json.Unmarshal(text, &st.node); err != nil {
			return nil, fmt.Errorf("node: %w", err)
		}
	}
	if err := readBucket(tx, bucketNamespaces, &st.namespaces); err != nil {
		return nil, err
	}
	if err := readBucket(tx, bucketNetworks, &st.networks); err != nil {
		return nil, err
	}
	var err error
	if st.attachments, err = s.cache.read(tx); err != nil {
		return nil, err
	}
	// Identifiers are random; people look for names.
	slices.SortFunc(st.attachments, func(a, b attachmentRecord) int { return cmp.Compare(a.Name, b.Name) })
	st.routes, err = s.routes.read(tx)
	return st, err
}

func readBucket[T any](tx *bbolt.Tx, name string, out *[]T) error {
	return tx.Bucket([]byte(name)).ForEach(func(k, v []byte) error {
		var record T
		if err := json.Unmarshal(v, &record); err != nil {
			return fmt.Errorf("%s %s: %w", name, k, err)
		}
		*out = append(*out, record)
		return nil
	})
}
