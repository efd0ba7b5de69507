// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
)

// recordCache keeps the records of attachments, so that a request does not decode
// hundreds of them several times. They are known by their text: what is read is always
// what the transaction sees, whoever wrote it and whether it will be committed or not.
type recordCache struct {
	mu sync.Mutex
	// +checklocks:mu
	known map[string]knownRecord
}

type knownRecord struct {
	text   []byte
	record attachmentRecord
}

// read returns all records, as copies.
func (c *recordCache) read(tx *bbolt.Tx) (out []attachmentRecord, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = make(map[string]knownRecord)
	}
	known := c.known
	err = tx.Bucket([]byte(bucketAttachments)).ForEach(func(k, v []byte) error {
		one, there := known[string(k)]
		if !there || !bytes.Equal(one.text, v) {
			one = knownRecord{text: bytes.Clone(v)}
			if err := json.Unmarshal(v, &one.record); err != nil {
				return fmt.Errorf("%s %s: %w", bucketAttachments, k, err)
			}
			known[string(k)] = one
		}
		out = append(out, one.record.clone())
		return nil
	})
	if len(known) > len(out)+maxForgotten {
		c.known = nil
	}
	return out, err
}

// maxForgotten is how many records are kept that nobody has any more.
const maxForgotten = 256

// clone is a copy that may be changed. What CNI, VLAN and Tap point to is never changed
// in place.
func (a *attachmentRecord) clone() attachmentRecord {
	out := *a
	out.Addresses, out.Settings = slices.Clone(a.Addresses), maps.Clone(a.Settings)
	out.Stations, out.Groups, out.Aliases = slices.Clone(a.Stations), slices.Clone(a.Groups), slices.Clone(a.Aliases)
	return out
}
