package syncer

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/statedir"
)

// The file "guard" beside the stored snapshot has what the guard knows: whom it let pass within the last hour, so that restarts do
// not let pass more than an hour may, which changes an operator rejected, and whose cards contradict openings. Its first line is
// "usher guard 2 CRC", the CRC-32C of all that follows in hexadecimal; then comes JSON. In every version the first line is
// such a one. Version 1 had whom the guard let pass alone.
const (
	hourMagic   = "usher guard"
	hourVersion = 2
	// maxKnown bounds what follows the first line; what is larger is damage. One customer takes at most 116 bytes for a change that
	// passed and 20 for one that was rejected, of 5 kinds each, 20 for a card that contradicts, and 65 for a hint and for an
	// opening that wait: 830. A million customers who are in each of the lists stay below it.
	maxKnown = 1 << 30
)

// knownStore is a SnapshotStore that keeps what the guard knows, too.
type knownStore interface {
	loadKnown(now time.Time) (known, error)
	saveKnown(body []byte) error
}

// storedKnown is the content of the file.
type storedKnown struct {
	// ERP is which one it is of. Versions that do not know it leave it out, and apply what is of any.
	ERP          string                                  `json:"erp,omitempty"`
	Passed       storedHour                              `json:"passed,omitempty"`
	Rejected     map[ChangeKind][]provision.SubscriberID `json:"rejected,omitempty"` // by an operator, sorted
	NoRows       bool                                    `json:"rejected_no_rows,omitempty"`
	Contradicted []provision.SubscriberID                `json:"contradicted,omitempty"` // openings, by the customers' own cards; sorted

	// What was going on; sorted. Versions that do not know them begin these anew.
	Hints    []storedTime `json:"hints,omitempty"`    // whose cards are to be read
	Openings []storedTime `json:"openings,omitempty"` // that wait for cards
}

// storedTime is a customer for whom something is going on since a time.
type storedTime struct {
	ID provision.SubscriberID `json:"id"`
	At time.Time              `json:"at"`
}

func encodeTimes(m map[provision.SubscriberID]time.Time) (out []storedTime) {
	for _, id := range slices.Sorted(maps.Keys(m)) {
		out = append(out, storedTime{id, m[id].UTC()})
	}
	return out
}

// decodeTimes returns those of a list that began within a time before now.
func decodeTimes(list []storedTime, within time.Duration, now time.Time) map[provision.SubscriberID]time.Time {
	var m map[provision.SubscriberID]time.Time
	for _, x := range list {
		if x.At.After(now) || now.Sub(x.At) >= within {
			continue
		}
		if m == nil {
			m = make(map[provision.SubscriberID]time.Time)
		}
		m[x.ID] = x.At
	}
	return m
}

type storedHour map[ChangeKind][]storedPassing

// storedPassing is one change that passed.
type storedPassing struct {
	ID    provision.SubscriberID `json:"id"`
	Until time.Time              `json:"until"`
	Card  bool                   `json:"card,omitempty"`
	Free  bool                   `json:"free,omitempty"`
	Word  bool                   `json:"word,omitempty"`
	Back  bool                   `json:"back,omitempty"` // versions before do not know it, and count the change as one that stands
}

// encode returns what the file has after its first line; nothing known is "{}".
func (k *known) encode() ([]byte, error) {
	out := storedKnown{Passed: storedHour{}, Rejected: make(map[ChangeKind][]provision.SubscriberID), NoRows: k.noRows, Contradicted: slices.Sorted(maps.Keys(k.contradicted))}
	if !k.empty() {
		out.ERP = k.erp
	}
	for kind, of := range k.passed {
		for id, p := range of {
			out.Passed[kind] = append(out.Passed[kind], storedPassing{id, p.until.UTC(), p.card, p.free, p.word, p.back})
		}
		slices.SortFunc(out.Passed[kind], func(a, b storedPassing) int { return cmp.Compare(a.ID, b.ID) })
	}
	out.Hints, out.Openings = encodeTimes(k.hints), encodeTimes(k.since)
	for kind := range k.rejected {
		if ids := k.rejected.ids(kind); len(ids) > 0 {
			out.Rejected[kind] = ids
		}
	}
	return json.Marshal(out)
}

// decodeKnown reads what encode of a version wrote. What a clock that was ahead wrote counts for an hour from now on.
func decodeKnown(version int, body []byte, now time.Time) (known, error) {
	var in storedKnown
	var err error
	if version == 1 {
		err = json.Unmarshal(body, &in.Passed)
	} else {
		err = json.Unmarshal(body, &in)
	}
	if err != nil {
		return newKnown(), err
	}
	out := newKnown()
	latest := now.Add(guardWindow)
	for _, k := range changeKinds {
		for _, p := range in.Passed[k] {
			if out.passed[k] == nil {
				out.passed[k] = make(map[provision.SubscriberID]passing)
			}
			if p.Until.After(latest) {
				p.Until = latest
			}
			out.passed[k][p.ID] = passing{until: p.Until, card: p.Card, free: p.Free, word: p.Word, back: p.Back}
		}
		out.rejected.add(k, in.Rejected[k]...)
	}
	out.erp, out.noRows = in.ERP, in.NoRows
	for _, id := range in.Contradicted {
		out.contradicted[id] = true
	}
	for i := range in.Hints {
		if in.Hints[i].At.After(now) { // a clock that is behind, as on a host that keeps no time while it is off
			in.Hints[i].At = now
		}
	}
	// An opening that waited longer is due at once by a list of then: of one that was down meanwhile nobody looked at it.
	out.hints, out.since = decodeTimes(in.Hints, hintPatience, now), decodeTimes(in.Openings, openingPatience, now)
	out.passed.expire(now)
	return out, nil
}

func (s *Store) knownPath() string { return filepath.Join(filepath.Dir(s.path), "guard") }

// loadKnown reads the file; without one nothing is known. A damaged one is put aside (statedir.PutAside), and the error says so;
// one that a newer usher wrote is a *statedir.NewerError.
func (s *Store) loadKnown(now time.Time) (known, error) {
	path := s.knownPath()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return newKnown(), nil
	}
	if err != nil {
		return newKnown(), fmt.Errorf("what the guard knows: %w", err)
	}
	defer f.Close()
	k, err := readKnown(f, path, now)
	switch {
	case err == nil:
		return k, nil
	case errors.As(err, new(*statedir.NewerError)):
		return newKnown(), err
	}
	return newKnown(), statedir.PutAside(path, fmt.Errorf("what the guard knows, %s: %w", path, err))
}

func readKnown(f *os.File, path string, now time.Time) (known, error) {
	version, body, err := statedir.ReadSummed(f, hourMagic, maxKnown)
	if err != nil {
		return known{}, err
	}
	if version > hourVersion {
		return known{}, &statedir.NewerError{Path: path, Has: fmt.Sprintf("format %d of what the guard knows", version), Knows: fmt.Sprint(hourVersion),
			Lost: "what the guard let pass within the last hour, and what operators rejected"}
	}
	return decodeKnown(version, body, now)
}

// saveKnown replaces the file. After a crash at any moment it is the old or the new one, whole. One of an older format is copied
// aside first; without the copy nothing is saved.
func (s *Store) saveKnown(body []byte) error {
	err := s.keepOlderKnown()
	if err == nil {
		err = statedir.Replace(s.knownPath(), 0o640, func(w io.Writer) error {
			return statedir.WriteSummed(w, hourMagic, hourVersion, body)
		})
	}
	if err != nil {
		return fmt.Errorf("store what the guard knows: %w", err)
	}
	return nil
}

// keepOlderKnown copies a file aside that an older usher can read and saveKnown's cannot.
func (s *Store) keepOlderKnown() error {
	f, err := os.Open(s.knownPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	version, err := statedir.SummedVersion(f, hourMagic)
	if version > 0 && version < hourVersion {
		_, err = statedir.CopyAside(s.knownPath(), version)
	}
	return err
}
