package syncer

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/statedir"
)

// The file "guard" beside the stored snapshot has whom the guard let pass within the last hour, so that restarts do not let
// pass more than an hour may. Its first line is "usher guard 1 CRC", the CRC-32C of all that follows in hexadecimal; then
// comes JSON. In every version the first line is such a one.
const (
	hourMagic   = "usher guard"
	hourVersion = 1
)

// hourStore is a SnapshotStore that keeps the guard's hour, too.
type hourStore interface {
	loadHour(now time.Time) (lately, error)
	saveHour(hour []byte) error
}

// storedPassing is one change that passed.
type storedPassing struct {
	ID    provision.SubscriberID `json:"id"`
	Until time.Time              `json:"until"`
	Card  bool                   `json:"card,omitempty"`
	Free  bool                   `json:"free,omitempty"`
}

// encode returns what the file has after its first line.
func (l lately) encode() ([]byte, error) {
	out := make(map[ChangeKind][]storedPassing)
	for k, of := range l {
		for id, p := range of {
			out[k] = append(out[k], storedPassing{id, p.until.UTC(), p.card, p.free})
		}
		slices.SortFunc(out[k], func(a, b storedPassing) int { return cmp.Compare(a.ID, b.ID) })
	}
	return json.Marshal(out)
}

// decodeHour reads what encode wrote. What a clock that was ahead wrote counts for an hour from now on.
func decodeHour(body []byte, now time.Time) (lately, error) {
	var in map[ChangeKind][]storedPassing
	if err := json.Unmarshal(body, &in); err != nil {
		return nil, err
	}
	l := lately{}
	latest := now.Add(guardWindow)
	for _, k := range changeKinds {
		for _, p := range in[k] {
			if l[k] == nil {
				l[k] = make(map[provision.SubscriberID]passing)
			}
			if p.Until.After(latest) {
				p.Until = latest
			}
			l[k][p.ID] = passing{until: p.Until, card: p.Card, free: p.Free}
		}
	}
	l.expire(now)
	return l, nil
}

func (s *Store) hourPath() string { return filepath.Join(filepath.Dir(s.path), "guard") }

// loadHour reads the file; there being none is an empty hour. A damaged one is renamed to end in .bad, and the error says so;
// one that a newer usher wrote is a *statedir.NewerError.
func (s *Store) loadHour(now time.Time) (lately, error) {
	path := s.hourPath()
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return lately{}, nil
	}
	if err != nil {
		return lately{}, fmt.Errorf("the guard's hour: %w", err)
	}
	defer f.Close()
	l, err := readHour(f, path, now)
	switch {
	case err == nil:
		return l, nil
	case errors.As(err, new(*statedir.NewerError)):
		return lately{}, err
	}
	err = fmt.Errorf("the guard's hour, %s: %w", path, err)
	if rerr := os.Rename(path, path+".bad"); rerr != nil {
		return lately{}, errors.Join(err, fmt.Errorf("keep it aside: %w", rerr))
	}
	return lately{}, fmt.Errorf("%w; kept as %s", err, filepath.Base(path)+".bad")
}

func readHour(r io.Reader, path string, now time.Time) (lately, error) {
	br := bufio.NewReader(r)
	head, err := br.ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	version, want := 0, uint32(0)
	if n, _ := fmt.Sscanf(head, hourMagic+" %d %08x\n", &version, &want); n != 2 || version < 1 {
		return nil, errors.New("the first line is none of usher's")
	}
	body, err := io.ReadAll(br)
	if err != nil {
		return nil, err
	}
	if sum := hourSum(body); sum != want {
		return nil, fmt.Errorf("checksum is %08x, the content has %08x: the file is damaged", want, sum)
	}
	if version > hourVersion {
		return nil, &statedir.NewerError{Path: path, Has: fmt.Sprintf("format %d of the guard's hour", version), Knows: fmt.Sprint(hourVersion),
			Lost: "what the guard let pass within the last hour"}
	}
	return decodeHour(body, now)
}

func hourSum(b []byte) uint32 { return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)) }

// saveHour replaces the file. After a crash at any moment it is the old or the new one, whole.
func (s *Store) saveHour(body []byte) error {
	err := statedir.Replace(s.hourPath(), 0o640, func(w io.Writer) error {
		if _, err := fmt.Fprintf(w, "%s %d %08x\n", hourMagic, hourVersion, hourSum(body)); err != nil {
			return err
		}
		_, err := w.Write(body)
		return err
	})
	if err != nil {
		return fmt.Errorf("store the guard's hour: %w", err)
	}
	return nil
}
