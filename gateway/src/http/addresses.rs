//! How many connections each address has. One address alone cannot take all places.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::rates::network_of;

/// The open connections of a listener, by address.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
    each_max: usize,
}

/// One connection of an address, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    pub(super) fn new(each_max: usize) -> Self {
        Self { open: Arc::default(), each_max }
    }

    /// A place for another connection, if the address may have one.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = network_of(address);
        let mut open = self.lock();
        let count = open.entry(address).or_insert(0);
        if *count >= self.each_max {
            return None;
        }
        *count += 1;
        Some(Place { addresses: self.clone(), address })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.addresses.lock();
        if let Some(count) = open.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let addresses = Addresses::new(2);
        let one = IpAddr::from([10, 0, 0, 1]);
        let places = [addresses.enter(one).unwrap(), addresses.enter(one).unwrap()];
        assert!(addresses.enter(one).is_none());
        // It is the same whichever way it comes in, and of IPv6 a host has a whole network.
        assert!(addresses.enter("::ffff:10.0.0.1".parse().unwrap()).is_none());
        let v6 = ["2001:db8::1", "2001:db8::2", "2001:db8::3"].map(|a| addresses.enter(a.parse().unwrap()));
        assert!(v6[1].is_some() && v6[2].is_none());
        drop(v6);
        assert!(addresses.enter(IpAddr::from([10, 0, 0, 2])).is_some());
        drop(places);
        assert!(addresses.enter(one).is_some());
        assert_eq!(addresses.lock().len(), 0);
    }
}
