package syncer

import (
	"context"
	"time"
)

// keepStored writes the snapshot in use to the store, soon after it changes but
// not more often than saveGap allows, and a last time when ctx ends. A write
// that fails is tried again.
func (s *Syncer) keepStored(ctx context.Context) {
	var k keeper
	for {
		var retry <-chan time.Time
		if k.failed {
			retry = time.After(10 * saveGap)
		}
		select {
		case <-ctx.Done():
			s.save(&k)
			return
		case <-s.dirty:
		case <-retry:
		}
		s.save(&k)
		select {
		case <-ctx.Done():
		case <-time.After(saveGap):
		}
	}
}

// keeper remembers what the store has.
type keeper struct {
	fingerprint uint64
	fetchedAt   time.Time
	any         bool
	failed      bool
}

// save writes the current snapshot, unless the store has the same content and
// nearly the same time already.
func (s *Syncer) save(k *keeper) {
	snap := s.Current()
	if snap == nil {
		return
	}
	fingerprint := snap.Fingerprint()
	if !k.any && s.loaded.Load() != nil { // the store has what was read from there
		k.any, k.fingerprint, k.fetchedAt = true, s.loaded.Load().Fingerprint(), s.loaded.Load().FetchedAt()
	}
	if k.any && !k.failed && k.fingerprint == fingerprint && snap.FetchedAt().Sub(k.fetchedAt) < saveUnchanged {
		return
	}
	began := time.Now()
	err := s.store.Save(snap)
	k.failed = err != nil
	s.mu.Lock()
	defer s.mu.Unlock()
	s.obs.Stored(time.Since(began), err)
	if err != nil {
		if s.status.StoreError != err.Error() {
			s.log.Error("snapshot could not be stored; a restart would begin with an older one", "error", err)
		}
		s.status.StoreError = err.Error()
		return
	}
	k.any, k.fingerprint, k.fetchedAt = true, fingerprint, snap.FetchedAt()
	s.status.StoreError, s.status.StoredAt = "", time.Now()
}
