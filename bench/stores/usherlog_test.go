package stores

import (
	"context"
	"errors"
	"log/slog"

	"github.com/usher-agent/usher/provision/wal"
)

// usher's own log.

type usherStore struct{ log *wal.Log }

func openUsher(dir string, each func(record)) (store, error) {
	log, err := wal.Open(wal.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	err = log.Load(context.Background(), func(r wal.Record) error {
		each(record{r.Kind, r.Key, r.Value})
		return nil
	})
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return usherStore{log}, nil
}

func (s usherStore) Commit(batch []record) error {
	return s.log.Commit(func(f *wal.Frames) error {
		for _, r := range batch {
			f.Put(wal.Record{Kind: r.Kind, Key: r.Key, Value: r.Value})
		}
		return nil
	})
}

func (s usherStore) Close() error { return s.log.Close() }
