package provision

// Hash is Fingerprint, found anew each time.
func (s *Snapshot) Hash() uint64 { return s.hash() }
