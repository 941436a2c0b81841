package garden

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"time"

	"github.com/usher-agent/usher/provision/statedir"
)

const (
	storeVersion = 1
	maxStored    = 8 << 20
)

// store is the path of the file that keeps what was looked up; empty: none.
type store string

// stored is the content of the file.
type stored struct {
	Version int                   `json:"version"`
	Names   map[string]storedName `json:"names"`
}

type storedName struct {
	Good      time.Time                `json:"good"`
	Addresses map[netip.Addr]time.Time `json:"addresses"`
}

func encode(names map[string]*entry) ([]byte, error) {
	s := stored{Version: storeVersion, Names: map[string]storedName{}}
	for name, e := range names {
		if !e.good.IsZero() {
			s.Names[name] = storedName{e.good, e.seen}
		}
	}
	data, err := json.MarshalIndent(s, "", " ")
	return append(data, '\n'), err
}

// decode reads what encode wrote, from the file at path. Nothing of it is trusted
// more than an answer. What a newer usher wrote is a *statedir.NewerError.
func decode(path string, data []byte) (map[string]*entry, error) {
	var s stored
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	switch {
	case s.Version > storeVersion:
		return nil, &statedir.NewerError{Path: path, Has: fmt.Sprintf("format %d", s.Version), Knows: fmt.Sprint(storeVersion),
			Lost: "the addresses of the gardens' names until the DNS answers"}
	case s.Version != storeVersion:
		return nil, fmt.Errorf("%s: version %d; this usher reads %d", path, s.Version, storeVersion)
	}
	names := make(map[string]*entry, len(s.Names))
	for name, n := range s.Names {
		e := &entry{seen: map[netip.Addr]time.Time{}, good: n.Good}
		for a, at := range n.Addresses {
			if a.Is4() && len(e.seen) < maxPerName {
				e.seen[a] = at
			}
		}
		names[name] = e
	}
	return names, nil
}

// load gives nothing and no error where there is no file. A damaged one is put aside (statedir.PutAside), and the error says so.
func (s store) load() (map[string]*entry, error) {
	if s == "" {
		return nil, nil
	}
	info, err := os.Stat(string(s))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular() || info.Size() > maxStored:
		return nil, statedir.PutAside(string(s), fmt.Errorf("%s: not a file of at most %d bytes", string(s), maxStored))
	}
	data, err := os.ReadFile(string(s))
	var names map[string]*entry
	if err == nil {
		names, err = decode(string(s), data)
	}
	if err != nil && !errors.As(err, new(*statedir.NewerError)) {
		err = statedir.PutAside(string(s), err)
	}
	return names, err
}

// save replaces the file; after a crash it is the old or the new one, whole.
func (s store) save(data []byte) error {
	if s == "" {
		return nil
	}
	return statedir.Replace(string(s), 0o640, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}
