//! Whose turn it is: which member of an ensemble moves which row.

use mbrl_env::Rng;

use crate::{Draw, MemberRule, ModelError, dynamics::check_particles};

/// Which member moves a row of one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Members {
    /// All of them: the mean over members.
    All,
    /// All of them: a draw from the Gaussian with the mean and the variance of their mixture.
    Mixture,
    /// One for each particle, shared by all candidates: rows of a particle are contiguous.
    Particles(Vec<usize>),
    /// One for each row.
    Rows(Vec<usize>),
}

impl Members {
    /// Deals `rows` = particles · candidates rows out to `members`, as `draw` says.
    ///
    /// With several particles these are dealt out: TS∞ gives particle p member ⌊p·E/P⌋, TS1 deals them afresh at each step
    /// in equal shares. All candidates of a particle share its member, which spares a gather and compares candidates on the
    /// same members; every candidate still meets every member. With one particle the rows themselves are dealt out
    /// in shares that differ by at most one (imagination from many states: MBPO).
    ///
    /// # Errors
    /// [`ModelError::Config`] where particles are neither 1 nor a multiple of the members.
    pub(crate) fn deal(draw: &Draw, members: usize, rows: usize) -> Result<Self, ModelError> {
        let particles = draw.propagation.particles;
        check_particles(particles, rows)?;
        let fault = |rule| Err(ModelError::Config { field: "particles", value: particles.to_string(), rule });
        // TS∞ keeps what the first step would deal.
        let step = match draw.propagation.rule {
            MemberRule::Expectation if particles == 1 => return Ok(Self::All),
            MemberRule::Expectation => return fault("1 with the rule `expectation`: all particles would be the same"),
            MemberRule::Ds => return Ok(Self::Mixture),
            MemberRule::Ts1 => draw.step,
            MemberRule::TsInf => 0,
        };
        if members == 1 {
            return Ok(Self::Particles(vec![0; particles]));
        }
        let shuffled = |n: usize| {
            let mut rng = Rng::new(draw.key ^ (u64::from(step) << 32) ^ 0x7453_3131);
            rng.permutation(n).into_iter().map(|place| place * members / n).collect::<Vec<_>>()
        };
        match particles {
            1 => Ok(Self::Rows(shuffled(rows))),
            p if !p.is_multiple_of(members) => fault("1, or a multiple of the members that roll-outs draw from"),
            p => Ok(Self::Particles(match draw.propagation.rule {
                MemberRule::TsInf => (0..p).map(|i| i * members / p).collect(),
                _ => shuffled(p),
            })),
        }
    }

    /// What is dealt out, particles or rows, in member order, padded so that each member has as many, and where each then
    /// stands; `None` where they are in that order already.
    pub(crate) fn order(turns: &[usize], members: usize) -> Option<(Vec<i32>, Vec<i32>)> {
        let mut shares = vec![Vec::new(); members];
        for (i, &member) in turns.iter().enumerate() {
            shares[member].push(i as i32);
        }
        let longest = shares.iter().map(Vec::len).max().unwrap_or(0);
        let mut order = Vec::with_capacity(members * longest);
        let mut place = vec![0i32; turns.len()];
        for (m, share) in shares.iter().enumerate() {
            for (i, &from) in share.iter().enumerate() {
                place[from as usize] = (m * longest + i) as i32;
            }
            order.extend(share);
            // Padding repeats the first; nothing reads it.
            order.resize((m + 1) * longest, 0);
        }
        let in_place = order.len() == turns.len() && order.iter().enumerate().all(|(i, &from)| i as i32 == from);
        (!in_place).then_some((order, place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Propagation;

    fn deal(members: MemberRule, particles: usize, step: u32, rows: usize) -> Members {
        let propagation = Propagation { rule: members, noise: true, particles };
        Members::deal(&Draw { step, ..Draw::new(propagation, 9) }, 5, rows).unwrap()
    }

    #[test]
    fn every_candidate_meets_every_member_equally_often() {
        // Were `row % members` used on particle-major rows, one candidate would meet one member only.
        for rule in [MemberRule::TsInf, MemberRule::Ts1] {
            for step in 0..4 {
                let Members::Particles(turns) = deal(rule, 20, step, 20 * 400) else { panic!() };
                for member in 0..5 {
                    assert_eq!(turns.iter().filter(|&&m| m == member).count(), 4);
                }
            }
        }
    }

    #[test]
    fn ts_infinity_keeps_members_and_ts1_deals_afresh() {
        assert_eq!(deal(MemberRule::TsInf, 10, 0, 10), Members::Particles(vec![0, 0, 1, 1, 2, 2, 3, 3, 4, 4]));
        assert_eq!(deal(MemberRule::TsInf, 10, 3, 10), deal(MemberRule::TsInf, 10, 0, 10));
        assert_ne!(deal(MemberRule::Ts1, 20, 1, 20), deal(MemberRule::Ts1, 20, 0, 20));
        assert_eq!(deal(MemberRule::TsInf, 1, 0, 103), deal(MemberRule::TsInf, 1, 7, 103));
        assert_ne!(deal(MemberRule::Ts1, 1, 0, 103), deal(MemberRule::Ts1, 1, 7, 103));
    }

    #[test]
    fn single_particles_are_dealt_out_in_equal_shares() {
        let Members::Rows(turns) = deal(MemberRule::Ts1, 1, 2, 103) else { panic!() };
        for member in 0..5 {
            assert!((20..=21).contains(&turns.iter().filter(|&&m| m == member).count()));
        }
    }

    #[test]
    fn order_and_place_undo_each_other() {
        for dealt in [deal(MemberRule::Ts1, 1, 0, 103), deal(MemberRule::Ts1, 10, 1, 70)] {
            let (Members::Rows(turns) | Members::Particles(turns)) = dealt else { panic!() };
            let (order, place) = Members::order(&turns, 5).unwrap();
            let share = order.len() / 5;
            assert!((0..turns.len()).all(|i| order[place[i] as usize] as usize == i));
            assert!((0..turns.len()).all(|i| place[i] as usize / share == turns[i]));
        }
        let Members::Particles(turns) = deal(MemberRule::TsInf, 10, 0, 70) else { panic!() };
        assert!(Members::order(&turns, 5).is_none());
    }

    #[test]
    fn impossible_particles_are_refused() {
        let draw = |members, particles| Draw::new(Propagation { rule: members, noise: false, particles }, 0);
        assert!(Members::deal(&draw(MemberRule::TsInf, 0), 5, 10).is_err());
        assert!(Members::deal(&draw(MemberRule::TsInf, 7), 5, 70).is_err());
        assert!(Members::deal(&draw(MemberRule::Ts1, 5), 5, 12).is_err());
        assert!(Members::deal(&draw(MemberRule::Expectation, 2), 5, 10).is_err());
    }
}
