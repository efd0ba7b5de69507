// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"sync"
	"time"

	"sluice/api"
	"sluice/dataplane"
)

// keepEvery is how often it is asked what rules and sets have counted and learned: so
// much is lost if the dataplane dies.
const keepEvery = 5 * time.Second

// counted is what the rulesets of namespaces remember, for the next dataplane. It is in
// a file, too, for the next agent. Nobody here looks into it.
type counted struct {
	path string

	mu sync.Mutex
	// +checklocks:mu
	all map[string]json.RawMessage
	// pending is what the dataplane has to be told yet.
	// +checklocks:mu
	pending map[string]json.RawMessage
}

// load reads the file. What can't be read is forgotten.
func (k *counted) load() {
	k.mu.Lock()
	defer k.mu.Unlock()
	text, err := os.ReadFile(k.path)
	if err == nil {
		_ = json.Unmarshal(text, &k.all)
	}
}

// keep replaces what is remembered.
func (k *counted) keep(all map[string]json.RawMessage) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending = nil // the agent has begun: who isn't there now is gone
	same := len(all) == len(k.all)
	for space, is := range all {
		same = same && bytes.Equal(is, k.all[space])
	}
	if same {
		return nil
	}
	k.all = all
	if len(all) == 0 {
		if err := os.Remove(k.path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := os.WriteFile(k.path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(k.path+".new", k.path)
}

// begin notes that a dataplane begins, which knows nothing of it.
func (k *counted) begin() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pending = maps.Clone(k.all)
}

// restore gives a dataplane that has begun what is of the rulesets that it has by now.
// After a start of both, ports come one after the other.
func (k *counted) restore(ctx context.Context, c *dataplane.Client) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var all error
	for key, saved := range k.pending {
		space, port, tenure := countedOf(key)
		there, err := c.RestoreRules(ctx, space, port, tenure, saved)
		if no := new(dataplane.RefusedError); err != nil && !errors.As(err, &no) { // else there is no such namespace yet
			all = errors.Join(all, err)
		}
		if there {
			delete(k.pending, key)
		}
	}
	return all
}

// keepCounted asks the dataplane from time to time.
func (a *Agent) keepCounted(ctx context.Context) {
	for {
		pause(ctx, keepEvery)
		if ctx.Err() != nil {
			return
		}
		if err := a.keepOnce(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("what rules have counted was not kept", "err", err)
		}
	}
}

// counted asks what the rules of a port have counted, or for 0 the namespace's.
func (a *Agent) counted(ctx context.Context, space string, port uint16) (json.RawMessage, error) {
	return asked(ctx, a.plane, func(ctx context.Context, c *dataplane.Client) (json.RawMessage, error) {
		return c.SaveRules(ctx, space, port)
	})
}

func (a *Agent) keepOnce(ctx context.Context) error {
	st, err := a.store.read()
	if err != nil {
		return err
	}
	all := make(map[string]json.RawMessage)
	for i := range st.namespaces {
		name := st.namespaces[i].Name
		if st.namespaces[i].NFT == nil {
			continue
		}
		saved, err := a.counted(ctx, name, 0)
		if err != nil {
			return nil //nolint:nilerr // it is being replaced; what it had is kept
		}
		all[name] = saved
	}
	for i := range st.attachments {
		rec := &st.attachments[i]
		n := st.network(rec.Network)
		if n == nil || rec.rules(n) == nil || rec.State != api.StateReady {
			continue
		}
		saved, err := a.counted(ctx, n.space(), rec.Port)
		if err != nil {
			return nil //nolint:nilerr // the same
		}
		all[countedKey(n.space(), rec.Port, rec.tenure())] = saved
	}
	return a.plane.counted.keep(all)
}
