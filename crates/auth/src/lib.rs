//! SigV4, keys, policies, sealed tokens and the key ring.
