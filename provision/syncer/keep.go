package syncer

import (
	"bytes"
	"context"
	"time"
)

// keepStored writes the snapshot in use to the store, soon after it changes but
// not more often than saveGap allows, and a last time when ctx ends. A write
// that fails is tried again.
func (s *Syncer) keepStored(ctx context.Context) {
	k := keeper{known: s.storedKnown}
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
	known       []byte // of the guard, as stored
	knownFailed bool   // it could not be
}

// saveKnown stores what the guard knows, if that is news. It comes before the snapshot: what is counted twice by a crash
// between the two counts once, what is not counted would pass again.
func (s *Syncer) saveKnown(k *keeper) error {
	store, able := s.store.(knownStore)
	if !able {
		return nil
	}
	s.mu.Lock()
	s.passed.expire(time.Now())
	body, err := s.knownNowLocked().encode()
	s.mu.Unlock()
	if err != nil || bytes.Equal(body, k.known) || k.known == nil && len(body) == len("{}") {
		return err
	}
	if err := store.saveKnown(body); err != nil {
		return err
	}
	k.known = body
	return nil
}

// knownNowLocked returns what is known, with what is going on.
func (s *Syncer) knownNowLocked() *known {
	k := s.known
	k.hints = s.hints.waiting()
	if s.openings != nil {
		k.since = s.openings.since
	}
	return &k
}

// save writes the current snapshot, unless the store has the same content and
// nearly the same time already.
func (s *Syncer) save(k *keeper) {
	text := ""
	if err := s.saveKnown(k); err != nil {
		text = err.Error()
		if !k.knownFailed {
			s.log.Error("what the guard let pass and an operator rejected could not be stored; a restart would let pass more", "error", err)
		}
	}
	k.knownFailed = text != ""
	s.mu.Lock()
	s.status.GuardStoreError = text
	s.mu.Unlock()
	snap := s.Current() // after what is known: a hint that was read meanwhile is read once more, not forgotten
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
