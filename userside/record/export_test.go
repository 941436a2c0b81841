package record

// Fix makes the masks of a Recorder the same in every run of a test, so that no
// mask happens to be what the test looks for.
func Fix(r *Recorder) { r.mask = newMasker([32]byte{7, 7, 7}) }
