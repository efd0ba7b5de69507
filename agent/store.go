// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// schemaVersion is the layout of the buckets and of the JSON in them. A field
// that is added does not change it; a file of another version is refused.
const schemaVersion = "1"

// Buckets: meta has the key "version"; networks and attachments map a name or an
// identifier to a record in JSON.
const (
	bucketMeta        = "meta"
	bucketNetworks    = "networks"
	bucketAttachments = "attachments"
)

// storeWait is how long to wait for the lock on the state file, which another
// agent with another run directory may hold.
const storeWait = time.Second

// store is the state file. Safe for concurrent use: one writer, any readers.
type store struct{ db *bbolt.DB }

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
	return &store{db}, nil
}

func prepareBuckets(tx *bbolt.Tx) error {
	for _, name := range []string{bucketMeta, bucketNetworks, bucketAttachments} {
		if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
			return err
		}
	}
	meta := tx.Bucket([]byte(bucketMeta))
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
		st, err = readState(tx)
		return err
	})
	return st, err
}

// update runs fn in one transaction: committed and on disk if it returns nil, as
// if it had not run otherwise.
func (s *store) update(fn func(*txn) error) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		st, err := readState(tx)
		if err != nil {
			return err
		}
		return fn(&txn{tx: tx, state: st})
	})
}

// txn is one writing transaction: the state that it began with, and the ways to
// change it.
type txn struct {
	tx    *bbolt.Tx
	state *state
}

func (t *txn) putNetwork(n *networkRecord) error { return t.put(bucketNetworks, n.Name, n) }

func (t *txn) dropNetwork(name string) error {
	return t.tx.Bucket([]byte(bucketNetworks)).Delete([]byte(name))
}

func (t *txn) putAttachment(a *attachmentRecord) error { return t.put(bucketAttachments, a.ID, a) }

func (t *txn) dropAttachment(id string) error {
	return t.tx.Bucket([]byte(bucketAttachments)).Delete([]byte(id))
}

func (t *txn) put(bucket, key string, record any) error {
	text, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return t.tx.Bucket([]byte(bucket)).Put([]byte(key), text)
}

func readState(tx *bbolt.Tx) (*state, error) {
	st := &state{generation: uint64(tx.ID())}
	if err := readBucket(tx, bucketNetworks, &st.networks); err != nil {
		return nil, err
	}
	if err := readBucket(tx, bucketAttachments, &st.attachments); err != nil {
		return nil, err
	}
	// Identifiers are random; people look for names.
	slices.SortFunc(st.attachments, func(a, b attachmentRecord) int { return cmp.Compare(a.Name, b.Name) })
	return st, nil
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
