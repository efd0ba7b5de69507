// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"time"

	"sluice/dataplane"
)

// spareAgain is how long it takes until another spare is started after one that did
// not start, or that died.
const spareAgain = 10 * time.Second

// promoteTimeout bounds the wait for a spare that may be frozen. Starting another
// process takes less.
const promoteTimeout = 500 * time.Millisecond

// standBy sees to it that there is a spare, without waiting for it. It is called when
// the dataplane has been forwarding for a while: what containers sent in a gap comes
// first.
func (p *plane) standBy(ctx context.Context) {
	if p.noSpare || time.Now().UnixNano() < p.nextSpare.Load() || !p.starting.CompareAndSwap(false, true) {
		return
	}
	p.spares.Go(func() {
		defer p.starting.Store(false)
		if start, needed := p.needsSpare(); needed {
			p.startSpare(ctx, start)
		}
	})
}

// needsSpare says whether there is none, and how to start one.
func (p *plane) needsSpare() (dataplane.StartConfig, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spare != nil {
		select {
		case <-p.spare.Done():
			p.log.Warn("the spare dataplane ended", "pid", p.spare.PID())
			p.spare.Close()
			p.setSpare(nil)
			p.putOffSpare()
		default:
		}
		return p.start, false
	}
	if err := p.load(); err != nil {
		p.log.Warn("no spare dataplane", "err", err)
		p.putOffSpare()
		return p.start, false
	}
	return p.start, true
}

// startSpare starts one.
func (p *plane) startSpare(ctx context.Context, start dataplane.StartConfig) {
	s, err := dataplane.NewSpare(ctx, start)
	if err != nil {
		if ctx.Err() == nil {
			p.log.Warn("no spare dataplane", "err", err)
			p.putOffSpare()
		}
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setSpare(s)
	p.log.Info("spare dataplane stands by", "pid", s.PID())
}

func (p *plane) putOffSpare() { p.nextSpare.Store(time.Now().Add(spareAgain).UnixNano()) }

// findSpare goes on with the spare of an agent before this one, which was killed. What it
// has prepared is worth most if its dataplane was killed too.
func (p *plane) findSpare(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, promoteTimeout)
	defer cancel()
	s, err := dataplane.FindSpare(ctx, p.start)
	switch {
	case errors.Is(err, dataplane.ErrNotRunning):
	case err != nil:
		p.log.Info("the spare dataplane found is of no use", "err", err)
	case p.noSpare:
		s.Close()
	default:
		p.setSpare(s)
		p.log.Info("spare dataplane found", "pid", s.PID())
	}
}

// promote makes the spare the dataplane; nil if there is none that can be.
//
// +checklocks:p.mu
func (p *plane) promote(ctx context.Context) *dataplane.Client {
	s := p.spare
	if s == nil {
		return nil
	}
	p.setSpare(nil)
	ctx, cancel := context.WithTimeout(ctx, promoteTimeout)
	defer cancel()
	c, err := s.Promote(ctx)
	if err != nil {
		p.log.Warn("the spare dataplane is of no use", "err", err)
		return nil
	}
	return c
}

// closeSpare ends the spare. No supervisor may run any more.
func (p *plane) closeSpare() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.spare != nil {
		p.spare.Close()
		p.setSpare(nil)
	}
}

// +checklocks:p.mu
func (p *plane) setSpare(s *dataplane.Spare) {
	p.spare = s
	if s == nil {
		p.sparePID.Store(0)
	} else {
		p.sparePID.Store(int64(s.PID()))
	}
}
